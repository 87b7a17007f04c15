#compdef sysgenid
# SPDX-License-Identifier: GPL-2.0
# zsh completion for sysgenid(8)

_sysgenid_hooks() {
	local -a hooks
	hooks=(/etc/sysgenid/hooks.d/*(N:t))
	compadd -a hooks
}

_sysgenid() {
	local -a commands json timeout
	commands=(
		'status:show the generation, and what is waited for'
		'get:print the generation'
		'wait:wait for a new generation and print it'
		'watch:print each new generation, or run a program for it'
		'run:run a program for each, and be waited for'
		'trigger:start a new generation'
		'wait-watchers:wait until all that are waited for are done'
		'wait-settled:wait until the system has settled'
		'hooks:list hooks, or run them'
		'prepare:have hooks prepare the system for a snapshot, or undo that'
		'seal:turn the system into a template'
		'gate:let the host know whether the system has settled'
	)
	json=('--json[print JSON]' '--help[print what there is]')
	timeout=('--timeout=[seconds to wait at most]:seconds')

	if ((CURRENT == 2)); then
		_describe command commands
		_arguments '--help[print what there is]' '--version[print the version]'
		return
	fi
	shift words
	((CURRENT--))
	case $words[1] in
	status|get)			_arguments $json ;;
	wait)				_arguments $json $timeout '--from=[return at once if it is not N]:N' ;;
	wait-watchers|wait-settled)	_arguments $json $timeout ;;
	trigger)			_arguments $json '--min=[the least generation]:N' ;;
	watch)				_arguments $json '*::program:_normal' ;;
	run)				_arguments '--help[print what there is]' '*::program:_normal' ;;
	hooks)				_arguments $json '--dry-run[only say what would be run]' \
						'1:action:(list run)' '*:hook:_sysgenid_hooks' ;;
	prepare)			_arguments '--help[print what there is]' \
						'--dry-run[only say what would be run]' \
						'--undo[undo what the hooks did]' ;;
	seal)				_arguments $json '--dry-run[only say what would be removed]' \
						'--list[list what is removed]' '--yes[do it]' \
						'--root=[the system in that directory]:directory:_directories' ;;
	gate)				_arguments '1:port:_files -W /dev/virtio-ports' ;;
	esac
}

_sysgenid "$@"
