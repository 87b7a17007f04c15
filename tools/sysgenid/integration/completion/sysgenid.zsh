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
		'status:show the generation, and which watchers are late'
		'get:check the hardware, then print the generation'
		'wait:wait for a new generation and print it'
		'watch:print each new generation, or run a program for it'
		'run:run a program for each, as a watcher that the system waits for'
		'trigger:start a new generation'
		'wait-watchers:wait until all tracked watchers are done'
		'wait-settled:wait until the system has settled'
		'hooks:list hooks, or run them'
		'prepare:run hooks that prepare for a snapshot, or undo that'
		'seal:turn the system into a template'
		'gate:report to the host whether the system has settled'
	)
	json=('--json[print JSON]' '--help[print help]')
	timeout=('--timeout=[timeout in seconds]:seconds')

	if ((CURRENT == 2)); then
		_describe command commands
		_arguments '--help[print help]' '--version[print the version]'
		return
	fi
	shift words
	((CURRENT--))
	case $words[1] in
	status|get)			_arguments $json ;;
	wait)				_arguments $json $timeout '--from=[return at once if the generation is not N]:N' ;;
	wait-watchers|wait-settled)	_arguments $json $timeout ;;
	trigger)			_arguments $json '--min=[minimum of the new generation]:N' ;;
	watch)				_arguments $json '*::program:_normal' ;;
	run)				_arguments '--help[print help]' '*::program:_normal' ;;
	hooks)				_arguments $json '--dry-run[only print what would be run]' \
						'1:action:(list run)' '*:hook:_sysgenid_hooks' ;;
	prepare)			_arguments '--help[print help]' \
						'--dry-run[only print what would be run]' \
						'--undo[undo what the hooks did]' ;;
	seal)				_arguments $json '--dry-run[only print what would be removed]' \
						'--list[list what is removed]' '--yes[confirm the removal]' \
						'--root=[seal the system in this directory]:directory:_directories' ;;
	gate)				_arguments '1:port:_files -W /dev/virtio-ports' ;;
	esac
}

_sysgenid "$@"
