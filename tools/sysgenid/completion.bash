# SPDX-License-Identifier: GPL-2.0
# bash completion for sysgenid(8)

_sysgenid()
{
	local cur prev words cword i options=

	_init_completion -s || return
	if ((cword == 1)); then
		COMPREPLY=($(compgen -W "status get wait watch run trigger
			wait-watchers --help" -- "$cur"))
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
	wait-watchers)	options="--json --timeout= --help" ;;
	esac
	[[ $prev == --@(from|timeout|min) ]] && return
	COMPREPLY=($(compgen -W "$options" -- "$cur"))
	[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
} && complete -F _sysgenid sysgenid
