//! Day 14: a container is made once more from its record: what a person would have to type.
//!
//! What it is to be, its plan, is in its record. What its mechanisms take is flags, and they
//! look up, open and check anew all that the flags name. So the plan is said in flags again,
//! as far as they would otherwise say something else.

use std::ffi::{OsStr, OsString};

use crate::plan::Plan;

// ANCHOR: words
/// The words after `run` that make a container of `plan`. What they do not say, the plan that it
/// begins with has already: its mounts, its networks, its published ports, its image.
pub fn words(plan: &Plan, in_background: bool) -> Vec<OsString> {
    // ANCHOR: day14_task2_words_solution
    let mut words: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: &OsStr| {
        words.push([OsStr::new(name), OsStr::new("="), value].into_iter().collect());
    };
    let text = |name: &str, value: &dyn ToString, flag: &mut dyn FnMut(&str, &OsStr)| {
        flag(name, OsStr::new(&value.to_string()));
    };
    if let Some(hostname) = &plan.hostname {
        text("--hostname", hostname, &mut flag);
    }
    if let Some(rootfs) = &plan.rootfs {
        flag("--rootfs", rootfs.as_os_str());
    }
    for layer in &plan.layers {
        flag("--layer", layer.as_os_str());
    }
    for (name, value) in &plan.environment {
        let setting: OsString = [name.as_os_str(), OsStr::new("="), value].into_iter().collect();
        flag("--env", &setting);
    }
    if let Some(user) = &plan.user {
        text("--user", user, &mut flag);
    }
    if let Some(dir) = &plan.working_dir {
        flag("--workdir", dir.as_os_str());
    }
    if let Some(address) = &plan.ip {
        text("--ip", address, &mut flag);
    }
    for server in &plan.dns {
        text("--dns", server, &mut flag);
    }
    for (name, value) in limits(plan) {
        text(name, &value, &mut flag);
    }
    let switches = [
        ("--read-only", plan.read_only),
        ("--rm", plan.auto_remove),
        ("--init", plan.init),
        ("--tty", plan.tty),
        ("--interactive", plan.interactive),
        ("--detach", in_background),
    ];
    words.extend(switches.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.into()));
    words.push("--".into());
    words.extend(plan.command.iter().cloned());
    words
    // ANCHOR_END: day14_task2_words_solution
}
// ANCHOR_END: words

/// The limits, from what is in the cgroup's files to what a person types.
fn limits(plan: &Plan) -> Vec<(&'static str, String)> {
    let value =
        |file: &str| plan.limits.iter().find(|(name, _)| name == file).map(|(_, value)| value.clone());
    let number = |file: &str| value(file).and_then(|text| text.parse::<u64>().ok());
    let memory = number("memory.max");
    // What is typed is memory and swap together.
    let swap = match (value("memory.swap.max").as_deref(), memory, number("memory.swap.max")) {
        (Some("max"), _, _) => Some("-1".to_string()),
        (_, Some(memory), Some(swap)) => Some((memory + swap).to_string()),
        _ => None,
    };
    // Microseconds of each period, which is 100,000 of them.
    let cpus = value("cpu.max").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let typed = [
        ("--memory", memory.map(|bytes| bytes.to_string())),
        ("--memory-swap", swap),
        ("--cpus", cpus.map(|share| (share / 100_000.0).to_string())),
        ("--pids-limit", value("pids.max")),
    ];
    typed.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
