//! Day 1, the child's last step: find the command, and become it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};

use crate::error::{CANNOT_EXECUTE, Failure, NOT_FOUND, Result};
use crate::explain::{shell, step};
use crate::report::Report;

/// Where commands are looked for when nothing else is said: Docker's default.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// ANCHOR: prepare
/// A command, found, and put into the form that execve takes.
pub struct Prepared {
    program: PathBuf,
    program_c: CString,
    arguments: Vec<CString>,
    variables: Vec<CString>,
}

/// Finds `command`, and puts together all that execve takes. Errors with the exit code a shell
/// would give: 127 not found, 126 found but not executable.
pub fn prepare(command: &[OsString], environment: &BTreeMap<OsString, OsString>) -> Result<Prepared> {
    // ANCHOR: day1_task2_prepare_solution
    let default_path = OsString::from(DEFAULT_PATH);
    let path = environment.get(OsStr::new("PATH")).unwrap_or(&default_path);
    let program = find(&command[0], path)?;

    let arguments = command.iter().cloned().map(c_string).collect::<Result<Vec<_>>>()?;
    let variables = (environment.iter())
        .map(|(name, value)| c_string([name, OsStr::new("="), value].into_iter().collect()))
        .collect::<Result<Vec<_>>>()?;
    let program_c = c_string(program.clone().into_os_string())?;
    Ok(Prepared { program, program_c, arguments, variables })
    // ANCHOR_END: day1_task2_prepare_solution
}
// ANCHOR_END: prepare

// ANCHOR: exec
/// Replaces this process by the command. Returns only when that failed, with the exit code a shell
/// would give. (execve(2))
pub fn exec(command: &Prepared, report: &Report) -> Result<Infallible> {
    // ANCHOR: day1_task2_exec_solution
    let Prepared { program, program_c, arguments, variables } = command;
    let describe = || {
        let words: Vec<&OsStr> = arguments.iter().map(|word| OsStr::from_bytes(word.to_bytes())).collect();
        let typed: Vec<String> = words.iter().map(|word| shell(word).to_string()).collect();
        (format!("execve({program:?}, {words:?})"), format!("exec {}", typed.join(" ")))
    };
    step(1, describe, || {
        // As the last of all: what is done after it and fails would pass for the command.
        report
            .about_to_exec()
            .and_then(|()| execve(program_c, arguments, variables))
            .map_err(|errno| not_executed(program, errno))
    })
    // ANCHOR_END: day1_task2_exec_solution
}
// ANCHOR_END: exec

// ANCHOR: find
/// The file that `name` means: itself if it has a slash, else the first
/// executable file of that name in `path`, a list of directories with colons
/// between them.
fn find(name: &OsStr, path: &OsStr) -> Result<PathBuf> {
    // ANCHOR: day1_task2_find_solution
    let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else if name.is_empty() {
        vec![]
    } else {
        std::env::split_paths(path).map(|dir| dir.join(name)).collect()
    };
    let mut refused = None;
    for candidate in candidates {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            // It may still be found further along PATH: that is what a shell does.
            Err(errno) => refused = refused.or(Some((candidate, errno))),
        }
    }
    match refused {
        Some((file, errno)) => Err(not_executed(&file, errno).into()),
        None => Err(not_found(name, path).into()),
    }
    // ANCHOR_END: day1_task2_find_solution
}
// ANCHOR_END: find

fn executable(file: &Path) -> nix::Result<()> {
    let metadata =
        std::fs::metadata(file).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    if metadata.is_dir() { Err(Errno::EISDIR) } else { access(file, AccessFlags::X_OK) }
}

fn not_found(name: &OsStr, path: &OsStr) -> Failure {
    let message = if name.as_bytes().contains(&b'/') {
        format!("{name:?}: no such file; the path is looked up where the command runs, in the container")
    } else {
        format!(
            "{name:?}: no such command in the PATH ({}); check the name, or give the file's path",
            path.display()
        )
    };
    Failure { exit_code: NOT_FOUND, message }
}

fn not_executed(file: &Path, errno: Errno) -> Failure {
    let (exit_code, why) = match errno {
        Errno::EISDIR => (CANNOT_EXECUTE, "it is a directory; name a program in it".into()),
        Errno::EACCES => (CANNOT_EXECUTE, "permission denied; it, and every directory above it, must be executable for the user (chmod +x), and its mount not noexec".into()),
        Errno::ENOEXEC => (CANNOT_EXECUTE, "neither a program for this machine nor a script that begins with #!".into()),
        // find() saw the file, so it is another file that is missing.
        Errno::ENOENT => (NOT_FOUND, "the file is there, but not the interpreter that its first line, or its ELF header, names".into()),
        other => (CANNOT_EXECUTE, io::Error::from(other).to_string()),
    };
    Failure { exit_code, message: format!("cannot execute {file:?}: {why}") }
}

fn c_string(text: OsString) -> Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
