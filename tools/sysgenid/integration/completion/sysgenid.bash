# SPDX-License-Identifier: GPL-2.0
# bash completion for sysgenid(8)

_sysgenid()
{
	local cur prev words cword i options=

	_init_completion -s || return
	if ((cword == 1)); then
		COMPREPLY=($(compgen -W "status get wait watch run trigger
			wait-watchers wait-settled hooks prepare seal gate --help --version" -- "$cur"))
		return
	fi
	for ((i = 2; i < cword; i++)); do
		if [[ ${words[i]} == -- ]]; then
			_command_offset $((i + 1))
			return
		fi
	done
	case ${words[1]} in
	status|get)	options="--json --help" ;;
	wait)		options="--json --from= --timeout= --help" ;;
	watch)		options="--json --help --" ;;
	run)		options="--help --" ;;
	trigger)	options="--json --min= --help" ;;
	wait-watchers|wait-settled)
			options="--json --timeout= --help" ;;
	hooks)		options="--json --dry-run --help"
			if ((cword == 2)); then
				options+=" list run"
			elif [[ ${words[2]} == run ]]; then
				options+=" $(cd /etc/sysgenid/hooks.d 2>/dev/null && echo *)"
			fi ;;
	prepare)	options="--dry-run --undo --help" ;;
	seal)		options="--dry-run --list --json --root= --yes --help"
			if [[ $prev == --root ]]; then
				_filedir -d
				return
			fi ;;
	gate)		options="--help $(compgen -G '/dev/virtio-ports/*')" ;;
	esac
	[[ $prev == --@(from|timeout|min) ]] && return
	COMPREPLY=($(compgen -W "$options" -- "$cur"))
	[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
} && complete -F _sysgenid sysgenid
