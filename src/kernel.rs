//! The few system calls that no library wraps. All `unsafe` of the runtime is
//! in this file.

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

/// The two returns of [`clone3`].
pub enum Clone {
    /// In the parent: the child's process id, and a handle on the child that no
    /// later process can inherit by reusing that id.
    Parent(Pid, OwnedFd),
    /// In the child.
    Child,
}

/// Has all threads to come allocate from one heap. Otherwise the C library maps a heap for each,
/// which takes longer than all that ours do with it. And has the kernel map each large block, also
/// after such a block was freed: as the C library would have it, the next comes from the heap, and
/// is to be zeroed by hand. (mallopt(3), M_ARENA_MAX, M_MMAP_THRESHOLD)
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK as i32);
    }
}

/// From how many bytes on a block of memory comes from the kernel itself: it is zero already, and
/// costs nothing until something is written into it. The heap always has less than this left, so
/// it does not come from there. (mallopt(3), M_TOP_PAD and M_TRIM_THRESHOLD: 128 KiB each)
pub const LARGE_BLOCK: usize = 256 << 10;

/// The child is born in a cgroup of our choice. (clone(2); not `libc`'s constant of
/// this name, which is too small for it and therefore 0)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

// ANCHOR: clone3
/// Makes a child that is a copy of this process, as fork(2) does, but born into
/// the new namespaces that `namespaces` asks for and, from day 7 on, in `cgroup`. With
/// CLONE_PARENT among them (day 14) it is not this process's child, but its parent's.
///
/// Errors: clone(2), "ERRORS"; EPERM is the lack of CAP_SYS_ADMIN.
///
/// # Safety
///
/// This process must have one thread. The child would have only the one that called, and a
/// lock that another held, in the allocator for one, would stay locked in it forever.
pub unsafe fn clone3(namespaces: CloneFlags, cgroup: Option<BorrowedFd>) -> io::Result<Clone> {
    // Memory that is shared with the child would make all that follows unsound.
    assert!(!namespaces.contains(CloneFlags::CLONE_VM), "clone3 is for a copy, as fork(2) is");
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain integers, and for each of them zero means
    // "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.bits() as u32) | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // A child of our parent ends with the signal that we do, and none may be named. (clone(2))
    let ours = !namespaces.contains(CloneFlags::CLONE_PARENT);
    args.exit_signal = if ours { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }

    // SAFETY: the kernel reads `args`, which lives on this stack, and writes one
    // fd to `pidfd`, likewise. Without CLONE_VM and without a stack of its own
    // the child goes on from here on its copy of this one.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Clone::Child),
        // SAFETY: clone3 succeeded, so `pidfd` is a new fd that nobody else owns.
        pid => Ok(Clone::Parent(Pid::from_raw(pid as i32), unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}
// ANCHOR_END: clone3

/// Makes a process that does `work` on `what`, and ends. It is in the memory of this one, on a
/// stack of its own, and that memory stays when this one ends. The copy that [`clone3`] makes is
/// most of what a process costs: making it, and each page that either then writes to.
/// posix_spawn(3) does without it as well. (clone(2), CLONE_VM)
///
/// # Safety
///
/// `work` makes system calls and nothing else, and asks none why it failed: both processes are in
/// this memory at once, and share the one errno of this thread.
pub unsafe fn spawn_in_this_memory<T: 'static>(work: fn(&T), what: T) -> nix::Result<()> {
    extern "C" fn begin<T>(argument: *mut libc::c_void) -> c_int {
        // SAFETY: it is what the caller made it from, and nobody frees it.
        let (work, what) = unsafe { &*argument.cast::<(fn(&T), T)>() };
        work(what);
        exit_now(0)
    }
    // Neither is ever freed: when this process has no use for them any more, the other one has.
    let argument = Box::into_raw(Box::new((work, what)));
    let mut stack = ManuallyDrop::new(Vec::<u8>::with_capacity(64 << 10));
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    // SAFETY: `begin` fits `argument`, and the stack grows down from its top.
    let pid = unsafe { libc::clone(begin::<T>, top.cast(), libc::CLONE_VM | libc::SIGCHLD, argument.cast()) };
    Errno::result(pid).map(drop)
}

/// Waits for the end of the child that `pidfd` means, and reaps it. (waitid(2); nix's
/// function of that name has an error for a child that a real-time signal killed, once it
/// has reaped it.)
pub fn reap(pidfd: BorrowedFd) -> io::Result<ExitStatus> {
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: `siginfo_t` is plain data, and all zeros is one of its values.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `info`, which lives on this stack.
    while unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid succeeded, and has filled in what belongs to a child.
    let status = unsafe { info.si_status() };
    // As wait(2) has it in one number.
    Ok(ExitStatus::from_raw(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }))
}

/// Sends the process `pid` a signal by its number: nix and rustix know only those that
/// have a name. (kill(2))
pub fn send_signal(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    match unsafe { libc::kill(pid.as_raw(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The same by a handle on the process. (pidfd_send_signal(2))
pub fn send_signal_by_handle(pidfd: BorrowedFd, number: i32) -> io::Result<()> {
    let (fd, no_info, no_flags) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>(), 0);
    // SAFETY: plain integers, and a null pointer, which stands for what kill(2) would say.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, no_flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Gives `signal` its default action again. (signal(7))
pub fn reset_signal(signal: Signal) -> nix::Result<()> {
    // SAFETY: the default action is no function of ours that could run at an
    // unfit moment.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map(drop)
}

/// The same for any signal by its number, also a real-time one. The kernel is asked, and not
/// the C library, which keeps two of them for itself. (rt_sigaction(2))
pub fn reset_signal_number(signal: c_int) -> nix::Result<()> {
    // The kernel's `struct sigaction`: SIG_DFL, no flags, no mask.
    let default = [0u64; 4];
    // SAFETY: the kernel reads `default`, which is not shorter than what it expects; and the
    // default action is no function of ours.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8)
    };
    Errno::result(result).map(drop)
}

/// Is `signal` ignored? Whoever started this program may have said so. (sigaction(2))
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: plain integers and a function pointer that may be null.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `action` and changes nothing.
    let result = unsafe { libc::sigaction(signal as c_int, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The signals by which a person, a script or a closing terminal tells the runtime to end.
pub const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];

static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Whether the first of those that do nothing has come: see [`let_the_second_act`].
pub fn was_told_to_end() -> bool {
    TOLD_TO_END.load(Relaxed)
}

/// The next of `signals` does nothing; the one after it has its default action.
pub fn let_the_second_act(signals: &[Signal]) -> nix::Result<()> {
    extern "C" fn first_one(_: c_int) {
        TOLD_TO_END.store(true, Relaxed);
        // On whatever signal: the second may be another one.
        for signal in ENDING {
            let _ = reset_signal(signal);
        }
    }
    for signal in signals {
        // SAFETY: the handler only calls sigaction(2), which may be called in one.
        // (signal-safety(7))
        unsafe { nix::sys::signal::signal(*signal, SigHandler::Handler(first_one)) }?;
    }
    Ok(())
}

/// Has this process leave its session keyring for a new one, empty and without a name.
/// (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING)
pub fn join_new_session_keyring() -> nix::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name is allowed, and means one without.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>(), 0, 0, 0) };
    Errno::result(result).map(drop)
}

/// Sets the execution domain and its flags; 0 is Linux's, without any. (personality(2))
pub fn set_personality(persona: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::personality(persona) }).map(drop)
}

/// Ends this process at once, without what Rust and the C library do at an
/// orderly exit: those buffers and handlers are the parent's. (_exit(2))
pub fn exit_now(code: u8) -> ! {
    // SAFETY: no memory is touched any more.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Closes all file descriptors but stdin, stdout and stderr. (close_range(2))
///
/// # Safety
///
/// No value of this program that owns one of them may be used or dropped afterwards. So it is
/// for a program that has opened none yet, or that ends with [`exit_now`].
pub unsafe fn close_inherited_files() -> io::Result<()> {
    // SAFETY: the caller answers for it.
    unsafe { close_inherited_files_from(3) }
}

/// The same from the descriptor `first` on. (day 18)
///
/// # Safety
///
/// As with [`close_inherited_files`].
pub unsafe fn close_inherited_files_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointer; for the descriptors the caller answers.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Has a program that is to live on, as a daemon does, get its standard streams and none of the other files
/// that our caller has left open: a lock would never be free, and a pipe never at its end.
/// (close_range(2), CLOSE_RANGE_CLOEXEC)
pub fn keep_only_the_standard_streams(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let close = || {
        // SAFETY: takes no pointer, and closes nothing before the exec.
        match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: between fork and exec it does one system call, and allocates nothing.
    unsafe { command.pre_exec(close) };
}

/// Has a program begin with no signal blocked, as nearly all are in the runtime, and end with whoever called
/// it. (sigprocmask(2), PR_SET_PDEATHSIG(2const))
pub fn begin_as_a_hook(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let begin = || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(nix::sys::signal::SigSet::empty().thread_set_mask()?)
    };
    // SAFETY: between fork and exec it does two system calls, and allocates nothing.
    unsafe { command.pre_exec(begin) };
}

/// Adds `flags`, of mount_setattr(2), to those of the mount at `path` in `dir`, or of
/// `dir` itself if `path` is empty. A remount by mount(2) would have to repeat all the
/// others. (mount_setattr(2))
pub fn add_mount_flags(dir: BorrowedFd, path: &CStr, flags: u32) -> io::Result<()> {
    set_mount(dir, path, 0, u64::from(flags), 0)
}

/// The same for `tree` and all that is mounted below it.
pub fn add_mount_flags_below(tree: BorrowedFd, flags: u32) -> io::Result<()> {
    set_mount(tree, c"", libc::AT_RECURSIVE, u64::from(flags), 0)
}

/// Cuts the tie between the mounts of the tree `tree` and those that they are copies of.
/// (mount_namespaces(7), "Shared subtrees")
pub fn make_mounts_private(tree: BorrowedFd) -> io::Result<()> {
    set_mount(tree, c"", libc::AT_RECURSIVE, 0, libc::MS_PRIVATE)
}

/// Whoever has an id on the disk has, seen through the mount `tree`, the id of the host that the
/// user namespace `users` says for it. `tree` is attached nowhere, and has no such mapping yet.
/// (mount_setattr(2), MOUNT_ATTR_IDMAP)
pub fn map_ids_of_mount(tree: BorrowedFd, users: BorrowedFd) -> io::Result<()> {
    map_ids(tree, users, 0)
}

/// The same for all mounts in it too. (day 18)
pub fn map_ids_below(tree: BorrowedFd, users: BorrowedFd) -> io::Result<()> {
    map_ids(tree, users, libc::AT_RECURSIVE)
}

fn map_ids(tree: BorrowedFd, users: BorrowedFd, flags: c_int) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    set_mount_attr(tree, c"", flags, attr)
}

/// Changes flags and propagation (0: as it is) of the mount `tree`, and `below`: of all in it. (day 18)
pub fn change_mount(tree: BorrowedFd, below: bool, set: u64, clear: u64, propagation: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    set_mount_attr(tree, c"", if below { libc::AT_RECURSIVE } else { 0 }, attr)
}

/// Sets the NIS domain name of this uts namespace. (setdomainname(2))
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as there are.
    match unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets when this process gets a disk. (ioprio_set(2))
pub fn set_io_priority(class: i32, priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: plain integers.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << 13 | priority) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets when this process gets a processor; `attributes.size` is filled in here. Errors: sched_setattr(2);
/// EPERM is the lack of CAP_SYS_NICE. (day 18)
pub fn set_scheduler(attributes: libc::sched_attr) -> io::Result<()> {
    /// libc's is the kernel's first one. With SCHED_FLAG_UTIL_CLAMP_MIN or _MAX the kernel wants two fields more,
    /// for which the specification has no words: 0.
    #[repr(C)]
    struct Attributes {
        first: libc::sched_attr,
        least_utilization: u32,
        most_utilization: u32,
    }
    let mut all = Attributes { first: attributes, least_utilization: 0, most_utilization: 0 };
    all.first.size = size_of_val(&all) as u32;
    let (this_process, no_flags) = (0, 0);
    // SAFETY: the kernel reads `all`, as many bytes as it says that there are.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, this_process, &raw const all, no_flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets from which memory nodes this process gets its memory: of `nodes` each bit is one, and no element
/// means none. `mode` has its flags in it. Errors: set_mempolicy(2). (day 18)
pub fn set_memory_policy(mode: c_int, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one off: so many bits it does not read.
    let (place, bits) = if nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        (nodes.as_ptr(), nodes.len() * u64::BITS as usize + 1)
    };
    // SAFETY: the kernel reads as many bits as there are in `nodes`.
    match unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, place, bits) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn set_mount(dir: BorrowedFd, path: &CStr, flags: c_int, set: u64, propagation: u64) -> io::Result<()> {
    // Zero means "leave as it is".
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    set_mount_attr(dir, path, flags, attr)
}

fn set_mount_attr(dir: BorrowedFd, path: &CStr, flags: c_int, attr: libc::mount_attr) -> io::Result<()> {
    let (dir, flags, size) = (dir.as_raw_fd(), flags | libc::AT_EMPTY_PATH, size_of_val(&attr));
    // SAFETY: the kernel only reads `path`, which ends with a NUL, and `attr`.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, &raw const attr, size) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

// ANCHOR: bpf
/// Loads a program of eBPF that decides about devices, each instruction as its eight bytes. The
/// kernel's verifier writes into `log` what it has to say of it, unless `log` is empty.
/// (bpf(2), BPF_PROG_LOAD)
pub fn load_device_program(instructions: &[[u8; 8]], log: &mut [u8]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    /// The beginning of the kernel's `union bpf_attr`. What is missing is 0 for the kernel.
    #[repr(C)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: *b"tiny_docker\0\0\0\0\0",
    };
    // SAFETY: the kernel reads `load` and the instructions and the string that it points to, and
    // writes to `log`, each no further than the length that is given with it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of_val(&load)) };
    match fd {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: bpf(2) succeeded, so this is a new fd that nobody else owns.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
    }
}

/// Has the kernel ask `program` before a process in `cgroup`, or in one below it, gets a device.
/// Programs of the cgroups above are asked too: each must allow it. (bpf(2), BPF_PROG_ATTACH)
pub fn attach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> io::Result<()> {
    const BPF_PROG_ATTACH: c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    // Also of `union bpf_attr`: where, what, as what, how.
    let attach =
        [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: the kernel reads `attach`, which lives on this stack, and nothing else.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
// ANCHOR_END: bpf

/// How many programs are asked before a process in `cgroup` gets a device: its own, and those of the
/// cgroups above. (bpf(2), BPF_PROG_QUERY)
pub fn count_device_programs(cgroup: BorrowedFd) -> io::Result<u32> {
    const BPF_PROG_QUERY: c_int = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    // Also of `union bpf_attr`: where, as what, how, the flags that come back, the ids' address in
    // two halves, their count, a gap.
    let mut query = [cgroup.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_QUERY_EFFECTIVE, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads and writes `query`, and, as the count is 0, no ids.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, query.as_mut_ptr(), size_of_val(&query)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(query[6]),
    }
}

/// Of which kind the namespace `file` is: the flag of clone(2) that makes such a one. ENOTTY: it is none.
/// (ioctl_ns(2), NS_GET_NSTYPE)
pub fn kind_of_namespace(file: BorrowedFd) -> io::Result<c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no pointer.
    match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind),
    }
}

// ANCHOR: seccomp
/// Has the kernel ask `program` before each system call of this process, and of all that it makes
/// and becomes: classic BPF, each instruction as its eight bytes. There is no way back. (seccomp(2),
/// SECCOMP_SET_MODE_FILTER)
pub fn attach_call_filter(program: &[[u8; 8]], flags: u32) -> io::Result<()> {
    set_call_filter(program, flags).map(drop)
}

fn set_call_filter(program: &[[u8; 8]], flags: u32) -> io::Result<c_long> {
    const SECCOMP_SET_MODE_FILTER: c_int = 1;
    /// The kernel's `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const [u8; 8],
    }
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel reads `program` and as many instructions as it says there are.
    match unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}
// ANCHOR_END: seccomp

/// The same, with a descriptor by which a program gets the calls that it decides about. (seccomp(2),
/// SECCOMP_FILTER_FLAG_NEW_LISTENER; seccomp_unotify(2))
pub fn attach_call_filter_and_listen(program: &[[u8; 8]], flags: u32) -> io::Result<OwnedFd> {
    const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;
    let descriptor = set_call_filter(program, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the kernel answers with a new descriptor, which is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as c_int) })
}
