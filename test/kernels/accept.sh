# The acceptance of a kernel, in a guest of it. $1 is how many recordings and verifications are made. Each line that begins with
# "accept:" is a result; "accept: FAIL" is one that is wrong.
n=$1
failed=0
fail() {
	echo "accept: FAIL $*"
	failed=1
}

# held prints how many of the hammer's calls a recording holds.
held() {
	count=0
	for call in $(cat /tmp/list); do
		grep -q "\"name\": \"$call\"" "$1" && count=$((count + 1))
	done
	echo $count
}

# verify prints the verdict on a command under a profile; it compares with a recording.
verify() {
	recording=$1 profile=$2
	shift 2
	seccompgen verify --recording "$recording" --profile "$profile" --exec -- "$@" 2>/tmp/err | grep -E -m 1 '^(pass|fail|inconclusive):'
}

echo "accept: kernel $(uname -r)"
seccompgen features >/tmp/features || fail "features: exit $?"
if ! grep -q '"recorder": "can record"' /tmp/features; then
	# One line, that names what is needed, for whoever records and for whoever asks before.
	seccompgen record -o /tmp/r.json --exec -- /work/hammer list >/tmp/out 2>&1 && fail "it recorded"
	[ "$(grep -c 'use Linux 5.15 or newer' /tmp/out)" = 1 ] && [ "$(wc -l </tmp/out)" = 1 ] || fail "record says: $(cat /tmp/out)"
	grep -q 'use Linux 5.15 or newer' /tmp/features || fail "features says: $(grep recorder /tmp/features)"
	[ -e /tmp/r.json ] && fail "a recording was written"
	echo "accept: refused $(sed 's/^seccompgen: error: //' /tmp/out | tail -n 1)"
	exit $failed
fi

# Six busy threads, and 60 calls of the main thread once each.
/work/hammer list | sort >/tmp/list
complete=0
for i in $(seq "$n"); do
	seccompgen record -o "/tmp/r$i.json" --exec -- /work/hammer >/tmp/out 2>&1 || fail "record: $(tail -n 1 /tmp/out)"
	if grep -q '"complete": true' "/tmp/r$i.json"; then
		complete=$((complete + 1))
		[ "$(held "/tmp/r$i.json")" = 60 ] || fail "recording $i calls itself complete and holds $(held "/tmp/r$i.json") of 60 calls"
	else
		echo "accept: incomplete $(tail -n 2 /tmp/out | head -n 1)"
	fi
done
echo "accept: recordings $complete/$n"
most=$(((n + 9) / 10)) # of them may prove nothing
[ $((complete + most)) -ge "$n" ] || fail "only $complete of $n recordings are complete"
seccompgen build --allow-incomplete -o /tmp/hammer.json /tmp/r*.json >/tmp/out 2>&1 || fail "build: $(tail -n 1 /tmp/out)"
passed=0
for i in $(seq "$n"); do
	said=$(verify /tmp/r1.json /tmp/hammer.json /work/hammer)
	case $said in
	pass:*) passed=$((passed + 1)) ;;
	inconclusive:*) echo "accept: $said" ;;
	*) fail "a false alarm: $said" ;;
	esac
done
echo "accept: verifications $passed/$n"
[ $((passed + most)) -ge "$n" ] || fail "only $passed of $n verifications pass"

# A call that the profile lacks is named, and no other.
sed '/"getsid",/d' /tmp/hammer.json >/tmp/thin.json
said=$(verify /tmp/r1.json /tmp/thin.json /work/hammer)
case $said in
"fail: getsid was denied"*) echo "accept: denials yes" ;;
*) fail "without getsid verify says: $said" ;;
esac

# A number without a name, and the other ABI.
seccompgen record -o /tmp/unknown.json --exec -- /work/hammer call 5000 5000 >/tmp/out 2>&1
grep -A 2 '"nr": 5000' /tmp/unknown.json | grep -q '"count": 2' || fail "number 5000 is not counted: $(tail -n 1 /tmp/out)"
if [ -e /work/calls ]; then
	if seccompgen record -o /tmp/compat.json --exec -- /work/calls run calls i20,i199,39 >/tmp/out 2>&1; then
		grep -A 3 '"abi": "SCMP_ARCH_X86"' /tmp/compat.json | grep -q '"name": "getuid32"' || fail "the calls of i386 are not recorded"
		echo "accept: compat yes"
	else
		fail "i386: $(tail -n 1 /tmp/out)"
	fi
fi

# A process that joins a container later, by the hook alone.
mkdir -p /tmp/b/rootfs/bin /tmp/b/rootfs/proc
cp /bin/busybox /work/hammer /tmp/b/rootfs/bin/
cat >/tmp/b/config.json <<EOF
{
  "ociVersion": "1.0.2", "root": {"path": "rootfs"},
  "process": {"args": ["/bin/busybox", "sleep", "600"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true},
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
  "hooks": {
    "createRuntime": [{"path": "/usr/local/bin/oci-hook", "args": ["oci-hook", "--output", "/tmp/joined.json"]}],
    "poststop": [{"path": "/usr/local/bin/oci-hook", "args": ["oci-hook", "--output", "/tmp/joined.json"]}]
  },
  "linux": {
    "namespaces": [{"type": "pid"}, {"type": "mount"}],
    "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}
  }
}
EOF
# One of three recordings may say that it is incomplete.
joined=no
for i in 1 2 3; do
	rm -f /tmp/joined.json
	if ! runc run -d -b /tmp/b joined </dev/null >/tmp/out 2>&1 || ! runc exec joined /bin/hammer call 5001 >/tmp/out 2>&1; then
		fail "joiner: $(tail -n 1 /tmp/out)"
		break
	fi
	runc kill joined KILL
	while runc state joined 2>/dev/null | grep -q '"status": "running"'; do :; done
	runc delete joined
	grep -q '"phase": "exec"' /tmp/joined.json || fail "the process that joined is not recorded"
	if grep -q '"complete": true' /tmp/joined.json; then
		joined=yes
		break
	fi
done
[ $joined = yes ] || fail "no recording of a process that joined is complete"
echo "accept: joiners $joined"

# The tests of a Go package.
seccompgen record -o /tmp/go.json --exec -- /work/go.test -test.short >/tmp/out 2>&1 || fail "a Go test: $(tail -n 1 /tmp/out)"
seccompgen build -o /tmp/go.profile.json /tmp/go.json >/tmp/out 2>&1 || fail "build for a Go test: $(tail -n 1 /tmp/out)"
passed=0
for i in $(seq "$n"); do
	said=$(verify /tmp/go.json /tmp/go.profile.json /work/go.test -test.short)
	case $said in
	pass:*) passed=$((passed + 1)) ;;
	inconclusive:*) echo "accept: $said" ;;
	*) fail "a Go test: $said" ;;
	esac
done
echo "accept: go $passed/$n"
[ $((passed + most)) -ge "$n" ] || fail "a Go test was verified in $passed of $n runs"
exit $failed
