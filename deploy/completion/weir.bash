# Completion of weir's arguments in bash. Written by `weir --completion bash` from the table of settings.
_weir_files()
{
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "$word")
}

_weir_stanzas() # a name may be any bytes: never given to compgen -W, which expands what it is given
{
	local name
	[[ -f $file && -r $file ]] || return
	while read -r name; do
		[[ ${name,,} == globals || $name != "$word"* ]] || COMPREPLY+=("$(printf %q "$name")")
	done < <(sed -n 's/^\[\([^]]*\)\].*/\1/p' -- "$file")
}

_weir()
{
	local word before value="" mode="" file="" i flags=""
	word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	if [[ $word == "=" ]]; then
		word=""
	elif [[ $before == "=" && $COMP_CWORD -gt 2 ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		reverse | packet | forward | top) [[ $i -gt 1 && ${COMP_WORDS[i]} == top ]] || mode=${mode:-${COMP_WORDS[i]}} ;;
		-c | -config | --config)
			file=${COMP_WORDS[i + 1]}
			[[ $file != "=" ]] || file=${COMP_WORDS[i + 2]}
			;;
		esac
	done
	COMPREPLY=()
	case $before in
	-*) value=${before#-} value=${value#-} value=${value//_/-} ;;
	esac
	if [[ $mode == top ]]; then
		case $value in
		token-file) _weir_files ;;
		admin | interval) ;;
		*) mapfile -t COMPREPLY < <(compgen -W "--admin --interval --once --token-file --help --version" -- "$word") ;;
		esac
		return
	fi
	case $value in
	c | config)
		_weir_files
		return
		;;
	node)
		_weir_stanzas
		return
		;;
	completion)
		mapfile -t COMPREPLY < <(compgen -W bash -- "$word")
		return
		;;
	mode)
		mapfile -t COMPREPLY < <(compgen -W "reverse packet forward" -- "$word")
		return
		;;
	balance)
		mapfile -t COMPREPLY < <(compgen -W "roundrobin leastconn hash" -- "$word")
		return
		;;
	queue)
		mapfile -t COMPREPLY < <(compgen -W "fifo fair" -- "$word")
		return
		;;
	ratelimit-headers)
		mapfile -t COMPREPLY < <(compgen -W "both draft legacy off" -- "$word")
		return
		;;
	partition)
		mapfile -t COMPREPLY < <(compgen -W "available strict" -- "$word")
		return
		;;
	proxy-protocol)
		mapfile -t COMPREPLY < <(compgen -W "off on" -- "$word")
		return
		;;
	redis-fail)
		mapfile -t COMPREPLY < <(compgen -W "closed local open" -- "$word")
		return
		;;
	ssl)
		mapfile -t COMPREPLY < <(compgen -W "no yes" -- "$word")
		[[ $word == -* ]] || return
		;;
	ssl-verify)
		mapfile -t COMPREPLY < <(compgen -W "no yes" -- "$word")
		[[ $word == -* ]] || return
		;;
	forwarded)
		mapfile -t COMPREPLY < <(compgen -W "append set off" -- "$word")
		return
		;;
	send-proxy)
		mapfile -t COMPREPLY < <(compgen -W "off v1 v2" -- "$word")
		return
		;;
	log-level)
		mapfile -t COMPREPLY < <(compgen -W "debug info warn error" -- "$word")
		return
		;;
	trace)
		mapfile -t COMPREPLY < <(compgen -W "no yes" -- "$word")
		[[ $word == -* ]] || return
		;;
	log-format)
		mapfile -t COMPREPLY < <(compgen -W "text json" -- "$word")
		return
		;;
	cluster-secret-file | auth-file | parent-auth-file | redis-password-file | keyfile | crtfile | cafile | tls-keyfile | tls-crtfile | tls-cafile | logfile | access-log | pidfile | admin-token-file)
		_weir_files
		return
		;;
	user)
		mapfile -t COMPREPLY < <(compgen -u -- "$word")
		return
		;;
	port | bind | drain-timeout | stats-path | endpoint | hash-key | probe-interval | probe-path | probe-rise | probe-fall | resolve-interval | retries | unavailable-status | threshold | burst | backlog | reject-status | max-clients | max-header | max-body | id | unicast | multicast | peers | cluster-secret | client-rate | client-burst | client-connections | client-key | client-block | exempt | limit.* | allow | deny | trust-forwarded | max-connections | host-limits | cap-backlog | host-rate | host-rates | host-backlog | connect-allow | parent | parent-auth | redis-addr | redis-password | redis-db | ssl-name | connect-timeout | header-timeout | response-timeout | idle-timeout | tunnel-timeout | admin | admin-token)
		return
		;;
	esac
	case $mode in
	reverse) flags="-c --config --node --check --quiet --daemon --help --version --reference --completion --healthcheck --mode --port --bind --drain-timeout --stats-path --endpoint --balance --hash-key --probe-interval --probe-path --probe-rise --probe-fall --resolve-interval --retries --unavailable-status --threshold --burst --backlog --queue --reject-status --ratelimit-headers --max-clients --max-header --max-body --id --unicast --multicast --peers --cluster-secret --cluster-secret-file --partition --client-rate --client-burst --client-connections --client-key --client-block --exempt --allow --deny --trust-forwarded --proxy-protocol --redis-addr --redis-password --redis-password-file --redis-db --redis-fail --ssl --keyfile --crtfile --ssl-verify --cafile --ssl-name --tls-keyfile --tls-crtfile --tls-cafile --connect-timeout --header-timeout --response-timeout --idle-timeout --tunnel-timeout --forwarded --send-proxy --logfile --log-level --trace --log-format --access-log --user --pidfile --admin --admin-token --admin-token-file" ;;
	packet) flags="-c --config --node --check --quiet --daemon --help --version --reference --completion --healthcheck --mode --port --bind --drain-timeout --probe-interval --probe-rise --probe-fall --retries --threshold --burst --backlog --queue --max-clients --max-body --id --unicast --multicast --peers --cluster-secret --cluster-secret-file --partition --client-rate --client-burst --client-connections --client-key --client-block --exempt --allow --deny --trust-forwarded --proxy-protocol --ssl --tls-keyfile --tls-crtfile --tls-cafile --connect-timeout --response-timeout --idle-timeout --logfile --log-level --trace --log-format --access-log --user --pidfile --admin --admin-token --admin-token-file" ;;
	forward) flags="-c --config --node --check --quiet --daemon --help --version --reference --completion --healthcheck --mode --port --bind --drain-timeout --stats-path --threshold --burst --backlog --queue --reject-status --ratelimit-headers --max-clients --max-header --max-body --id --unicast --multicast --peers --cluster-secret --cluster-secret-file --partition --client-rate --client-burst --client-connections --client-key --client-block --exempt --allow --deny --trust-forwarded --proxy-protocol --max-connections --host-limits --cap-backlog --host-rate --host-rates --host-backlog --connect-allow --auth-file --parent --parent-auth --parent-auth-file --redis-addr --redis-password --redis-password-file --redis-db --redis-fail --ssl --tls-keyfile --tls-crtfile --tls-cafile --connect-timeout --header-timeout --response-timeout --idle-timeout --tunnel-timeout --forwarded --logfile --log-level --trace --log-format --access-log --user --pidfile --admin --admin-token --admin-token-file" ;;
	*) flags="-c --config --node --check --quiet --daemon --help --version --reference --completion --healthcheck --mode --port --bind --drain-timeout --stats-path --endpoint --balance --hash-key --probe-interval --probe-path --probe-rise --probe-fall --resolve-interval --retries --unavailable-status --threshold --burst --backlog --queue --reject-status --ratelimit-headers --max-clients --max-header --max-body --id --unicast --multicast --peers --cluster-secret --cluster-secret-file --partition --client-rate --client-burst --client-connections --client-key --client-block --exempt --allow --deny --trust-forwarded --proxy-protocol --max-connections --host-limits --cap-backlog --host-rate --host-rates --host-backlog --connect-allow --auth-file --parent --parent-auth --parent-auth-file --redis-addr --redis-password --redis-password-file --redis-db --redis-fail --ssl --keyfile --crtfile --ssl-verify --cafile --ssl-name --tls-keyfile --tls-crtfile --tls-cafile --connect-timeout --header-timeout --response-timeout --idle-timeout --tunnel-timeout --forwarded --send-proxy --logfile --log-level --trace --log-format --access-log --user --pidfile --admin --admin-token --admin-token-file" ;;
	esac
	local modes="reverse packet forward top"
	if [[ $word != -* && -z $mode && -z $file ]]; then
		flags="$modes"
	fi
	mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
}
complete -F _weir weir
