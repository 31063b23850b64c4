//! A program that makes system calls as it is told, to be run in a container: this test program
//! itself, which needs no C library there. What runs before its `main` looks whether it is one.

use std::path::PathBuf;

/// The calls, such as `41,38,3,0 x86:20`: numbers of Linux, and their arguments.
const CALLS: &str = "TINY_DOCKER_PROBE";

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn before_main() {
        let Ok(calls) = std::env::var(CALLS) else { return };
        for call in calls.split_whitespace() {
            let (call, by_x86) = call.strip_prefix("x86:").map_or((call, false), |call| (call, true));
            let mut words = call.split(',').map(|word| word.parse().expect("a number"));
            let (number, mut next) = (words.next().expect("a call"), || words.next().unwrap_or(0_i64));
            let arguments = [next(), next(), next(), next(), next(), next()];
            let result = if by_x86 { x86_call(number, arguments[0]) } else { native_call(number, arguments) };
            println!(
                "{}",
                if result < 0 {
                    format!("{:?}", nix::errno::Errno::from_raw(-result as i32))
                } else {
                    "ok".into()
                }
            );
        }
        std::process::exit(0);
    }
    before_main
};

fn native_call(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    // SAFETY: what tests have it call changes nothing in this process's memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { -i64::from(nix::errno::Errno::last_raw()) } else { result }
}

/// A call by the numbers of the 386, which a program of 64 bits can make too.
#[cfg(target_arch = "x86_64")]
fn x86_call(number: i64, argument: i64) -> i64 {
    let mut result = number;
    // SAFETY: as above. The kernel keeps the registers, and ebx is put back.
    unsafe {
        std::arch::asm!(
            "xchg {argument}, rbx", "int 0x80", "xchg {argument}, rbx",
            argument = inout(reg) argument => _, inout("rax") result,
            in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0, out("r8") _, out("r9") _, out("r10") _, out("r11") _
        );
    }
    i64::from(result as i32)
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_call(_number: i64, _argument: i64) -> i64 {
    panic!("there is no x86 here")
}

/// The flags of `run` that bring the program, and have it make `calls`; and what it is called there.
pub fn flags(calls: &str) -> ([String; 4], String) {
    let program: PathBuf = std::env::current_exe().expect("this program");
    let (dir, name) = (program.parent().expect("a directory"), program.file_name().expect("a name"));
    let mount = format!("{}:/srv:ro", dir.display());
    let flags = ["-v".into(), mount, "-e".into(), format!("{CALLS}={calls}")];
    (flags, format!("/srv/{}", name.to_string_lossy()))
}
