#!/bin/busybox sh
# The guest's init. runc wants a root that pivot_root accepts, which an initramfs is not: all of it moves to a tmpfs first.
if [ "$1" != moved ]; then
	/bin/busybox mkdir /new
	/bin/busybox mount -t tmpfs none /new
	/bin/busybox cp -a /bin /lib* /usr /work /init /command /new
	exec /bin/busybox switch_root /new /init moved
fi
export PATH=/usr/local/bin:/usr/sbin:/bin HOME=/root
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /run /tmp /root /etc /var/lib
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
stty -onlcr
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /run /tmp; do mount -t tmpfs none $dir; done
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf none /sys/fs/bpf
insmod /lib/overlay.ko
ifconfig lo up
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
echo root:x:0: >/etc/group
cd /work
echo "kernels: up"
/command
echo "kernels: exit $?"
reboot -f
