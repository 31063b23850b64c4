"""As much of libmount's Python binding as crun's test_mounts asks for: Debian 12 has no package of
it. A table is read from a copy of /proc/PID/mountinfo; see proc_pid_mountinfo(5)."""


class Mount:
    def __init__(self, line):
        before, after = line.split(" - ", 1)
        words = before.split()
        self.target, self.vfs_options = words[4], words[5]
        self.fs_options = after.split()[2]


class Table:
    def __init__(self, path):
        with open(path) as file:
            self.mounts = [Mount(line) for line in file if " - " in line]

    def find_target(self, target):
        # The one that was mounted last is on top.
        return next((one for one in reversed(self.mounts) if one.target == target), None)
