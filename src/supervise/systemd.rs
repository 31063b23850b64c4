//! Day 14: `systemd`: a unit by which systemd keeps a container running, from the boot on.
//!
//! Nothing of ours runs at boot, for nothing of ours is a daemon. So another program has to
//! start the container, and that program also sees it end. Two that start it again would be
//! one too many: each takes the other's container for its own, or for one that is in the way. The
//! unit says `--by-systemd`, and then our own policy does nothing: it has become the unit's.

use std::path::Path;

use anyhow::{Context, bail};

use crate::error::{self, COMMAND_FAILED, Result, failed};
use crate::exec::start::startable;
use crate::metadata::by_person;
use crate::metadata::output::print;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::plan::Restart;

/// Print a unit of systemd that runs a container, and starts it again as its --restart says
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Systemd {
    #[command(flatten)]
    state: State,

    /// Its id or name
    container: String,
}

const EXAMPLE: &str = "\
Example:
  tiny-docker create --name web --restart always --rootfs /srv/web httpd
  tiny-docker systemd web >/etc/systemd/system/web.service
  systemctl daemon-reload
  systemctl enable --now web";

/// What `start --by-systemd` exits with if systemd is to leave the container as it is: a person
/// has ended it, or it is not there any more. No signal and no shell leads to this number.
const LEAVE_IT: u8 = 199;

impl Systemd {
    /// Prints the unit. Returns the exit code: 1 if there can be none.
    pub fn execute(self) -> Result<u8> {
        print(&self.unit().map_err(failed)?)
    }

    fn unit(&self) -> Result<String> {
        let record = self.state.find(&self.container)?;
        let title = record.title();
        if let Some(why) = &record.unreadable {
            bail!("container {title} cannot be read, so nobody can start it: {why}");
        }
        if record.plan.auto_remove {
            bail!(
                "container {title} is forgotten when it ends, and could not be started again; make it without --rm"
            );
        }
        if record.plan.tty && record.plan.interactive {
            bail!(
                "container {title} was made with -it, and systemd has nobody who types; make it without -i"
            );
        }
        let program = std::env::current_exe().context("find this program's file")?;
        let root = std::fs::canonicalize(self.state.path())
            .with_context(|| format!("look at {:?}", self.state.path()))?;
        let program = program_word(&program)?;
        Ok(unit(&record, &format!("{program} --root {}", word(&root)?)))
    }
}

/// The unit of the container of `record`; `program` is how a command line of it begins.
fn unit(record: &Record, program: &str) -> String {
    let (title, id, policy) = (record.title(), &record.id, record.plan.restart);
    let (limit, restart) = settings(policy);
    format!(
        "\
# Container {title} ({id}), --restart {policy}.
# systemd alone starts it again: --by-systemd says so to tiny-docker.
[Unit]
Description=tiny-docker container {title}
Wants=network-online.target
After=network-online.target
{limit}
[Service]
Type=exec
ExecStart=:{program} start --attach --by-systemd {id}
# (systemd calls this after an end of its own as well. One that was removed needs no stop.)
ExecStop=-:{program} stop --time 10 {id}
{restart}# With systemd 254 or newer, RestartSteps= and RestartMaxDelaySec= make the pauses longer.
RestartSec=1
# It was stopped by tiny-docker stop, kill or rm: it stays stopped.
RestartPreventExitStatus={LEAVE_IT}
SuccessExitStatus={LEAVE_IT}
# It has cgroups of its own below the unit's, and ends what is in there.
Delegate=yes
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"
    )
}

// ANCHOR: settings
/// A policy in systemd's words: of the section `[Unit]`, and of `[Service]`. There, unlike here,
/// whoever fails five times within ten seconds is given up, unless the unit says otherwise.
/// (systemd.unit(5), StartLimitIntervalSec; systemd.service(5), Restart)
fn settings(policy: Restart) -> (String, &'static str) {
    // ANCHOR: day14_task4_settings_solution
    let no_limit = || "StartLimitIntervalSec=0\n".to_string();
    match policy {
        Restart::No => (no_limit(), "Restart=no\n"),
        Restart::OnFailure(None) => (no_limit(), "Restart=on-failure\n"),
        Restart::OnFailure(Some(times)) => {
            // The first start counts as well. An interval without an end: they are never forgotten.
            let starts = times.saturating_add(1);
            let limit = format!(
                "# From one `systemctl reset-failed` to the next.\nStartLimitIntervalSec=infinity\nStartLimitBurst={starts}\n"
            );
            (limit, "Restart=on-failure\n")
        }
        Restart::Always => (no_limit(), "Restart=always\n"),
        Restart::UnlessStopped => (
            no_limit(),
            "# Whether it is started at boot is systemd's to know: systemctl disable.\nRestart=always\n",
        ),
    }
    // ANCHOR_END: day14_task4_settings_solution
}
// ANCHOR_END: settings

// ANCHOR: word
/// `path` as one word of a command line in a unit. In quotes, a backslash begins what stands for
/// another character, and everywhere `%` begins a specifier. (`$` would begin a variable, but not
/// in a command line that begins with a colon.) (systemd.syntax(7), "Quoting"; systemd.unit(5),
/// "Specifiers"; systemd.service(5), "Command lines")
fn word(path: &Path) -> Result<String> {
    // ANCHOR: day14_task4_word_solution
    let Some(text) = path.to_str() else {
        bail!("{path:?} is no UTF-8, and the files of systemd are; expected another path");
    };
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '%' => word.push_str("%%"),
            '"' | '\\' => word.extend(['\\', c]),
            c if c.is_ascii_control() => word.push_str(&format!("\\x{:02x}", c as u32)),
            c => word.push(c),
        }
    }
    word.push('"');
    Ok(word)
    // ANCHOR_END: day14_task4_word_solution
}
// ANCHOR_END: word

/// The same for the program, of which systemd takes less.
fn program_word(program: &Path) -> Result<String> {
    let word = word(program)?;
    match word.contains('\\') || word.contains('\'') {
        true => bail!(
            "systemd starts no program whose path has quotes, backslashes or control characters: {program:?}"
        ),
        false => Ok(word),
    }
}

/// Starts the container that `word` means by `begin`, for systemd. Returns what systemd is to
/// hear: its exit code, or that it is to be left as it is.
pub fn start(state: &State, word: &str, begin: impl FnOnce(Record) -> Result<u8>) -> Result<u8> {
    let record = match startable(state, word) {
        Ok(Some(record)) => record,
        // It is somebody else's: systemd may try again once that one is done.
        Ok(None) => {
            error::say(format_args!(
                "container {word} runs already, and not by systemd; stop it: tiny-docker stop {word}"
            ));
            return Ok(COMMAND_FAILED);
        }
        Err(error) => {
            error::print(&error);
            return Ok(if state.is_there(word) { COMMAND_FAILED } else { LEAVE_IT });
        }
    };
    let (dir, policy) = (state.dir(&record.id), record.plan.restart);
    if !policy.is_no() {
        let title = record.title();
        error::say(format_args!(
            "container {title} is systemd's to start again; its own --restart {policy} does nothing"
        ));
    }
    let code = begin(record)?;
    Ok(told(code, by_person::is_noted(&dir) || !dir.exists()))
}

// ANCHOR: told
/// What systemd is told of a container that exited with `code`. `is_left`: it is to stay as it is.
fn told(code: u8, is_left: bool) -> u8 {
    // ANCHOR: day14_task4_told_solution
    match code {
        _ if is_left => LEAVE_IT,
        // Its own, which means nothing of the kind.
        LEAVE_IT => LEAVE_IT - 1,
        code => code,
    }
    // ANCHOR_END: day14_task4_told_solution
}
// ANCHOR_END: told

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_as_it_is() {
        for (path, expected) in [
            ("/var/lib/tiny-docker", r#""/var/lib/tiny-docker""#),
            ("/a b/100%/$HOME", r#""/a b/100%%/$HOME""#),
            (r#"/"x"\y/'z'"#, r#""/\"x\"\\y/'z'""#),
            ("/new\nline\ttab/é", r#""/new\x0aline\x09tab/é""#),
        ] {
            assert_eq!(word(Path::new(path)).unwrap(), expected, "{path:?}");
        }
        let no_text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/\xff");
        assert!(word(Path::new(no_text)).is_err(), "a path that is no UTF-8");
        for path in ["/a\"b", "/a'b", "/a\\b", "/a\nb"] {
            assert!(program_word(Path::new(path)).is_err(), "{path:?} is no program for systemd");
        }
    }
}
