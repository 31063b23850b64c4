//! What people read, pinned down for exactly the day that this is built for:
//! `--help`, `--explain`, and the console transcripts of the book.
//!
//! `make vm-test UPDATE=1` writes anew what they compare with.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{DAY, World};

#[test]
fn help_is_as_it_was() {
    let world = World::new();
    let mut text = String::new();
    let commands = [
        "run",
        "ps",
        "logs",
        "stop",
        "inspect",
        "rm",
        "kill",
        "wait",
        "stats",
        "network",
        "network rm",
        "diff",
        "cp",
        "volume",
        "volume create",
        "volume ls",
        "volume inspect",
        "volume rm",
        "volume prune",
        "pull",
        "push",
        "login",
        "logout",
        "images",
        "rmi",
        "tag",
        "history",
        "image",
        "image inspect",
        "image prune",
        "save",
        "load",
        "commit",
        "port",
        "exec",
        "create",
        "start",
        "restart",
        "attach",
        "pause",
        "unpause",
        "top",
        "update",
        "rename",
        "events",
        "systemd",
        "network create",
        "network ls",
        "network inspect",
        "network connect",
        "network disconnect",
        "network prune",
        "seccomp",
        "seccomp show",
    ];
    let there = match DAY {
        1..=3 => 4,
        4 | 5 => 6,
        6 => 8,
        7 | 8 => 9,
        9 => 11,
        11 => 19,
        12 => 33,
        13 => 34,
        14 | 15 => 52,
        _ => commands.len(),
    };
    let of_commands = commands[..there].iter().map(|command| command.split(' ').chain(["--help"]).collect());
    for words in std::iter::once(vec!["--help"]).chain(of_commands) {
        let assert = world.tiny_docker(&words).env_remove("TINY_DOCKER_ROOT").assert().success();
        writeln!(text, "$ tiny-docker {}\n{}", words.join(" "), utf8(&assert.get_output().stdout)).unwrap();
    }
    insta::assert_snapshot!(format!("help_day{DAY}"), text);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn explain_is_as_it_was() {
    let world = World::new();
    // Every flag of every day that has one.
    let words = match DAY {
        1 => "--explain run sh -c true",
        2 => "--explain run --hostname box sh -c true",
        3 => "--explain run --hostname box --rootfs rootfs -u app -e A=1 -w /srv --read-only sh -c true",
        4 => "--explain run --rootfs rootfs --name web sh -c true",
        5 => "--explain run --rootfs rootfs -d -t sh -c true",
        6 => "--explain run --rootfs rootfs --init --rm sh -c true",
        7 => {
            "--explain run --rootfs rootfs --memory 128m --memory-swap 256m --cpus 0.5 --pids-limit 64 --rm sh -c true"
        }
        8 => "--explain run --rootfs rootfs --net none --rm sh -c true",
        9 => "--explain run --rootfs rootfs --ip 10.10.0.7 --dns 10.10.0.1 --rm sh -c true",
        11 => {
            "--explain run --net none --layer layer --layer rootfs -v data:/srv -v ./rootfs/etc:/mnt:ro --tmpfs /tmp --rm sh -c true"
        }
        12 => "--explain run --net none --image lab/web:v1 --rm true",
        13 => {
            "--explain run --rootfs rootfs --ip 10.10.0.7 -p 8080:80 -p 10.10.0.1:5353:53/udp -p 127.0.0.1:9090:90 --rm sh -c true"
        }
        14 => "--explain run --rootfs rootfs --net back --network-alias db --rm sh -c true",
        15 => {
            "--explain run --rootfs rootfs --net none -u app --cap-drop ALL --cap-add CHOWN --device /dev/kmsg:/dev/log/kernel:r --ulimit nofile=1024:2048 --sysctl net.core.somaxconn=64 --oom-score-adj 100 --shm-size 1m --group-add 27 --security-opt no-new-privileges --rm sh -c true"
        }
        _ => "--explain run --rootfs rootfs --net none -u app --init --rm sh -c true",
    };
    if DAY >= 3 {
        world.copy_of_rootfs("rootfs");
        fs::create_dir(world.dir().join("layer")).unwrap();
    }
    #[cfg(feature = "day12-images")]
    load_an_image(&world);
    if DAY == 14 {
        world.tiny_docker(["network", "create", "back"]).assert().success();
    }
    forward_nothing();
    let assert = world.tiny_docker(words.split(' ')).env("PATH", "/usr/bin:/bin").assert().success();
    let narration = normalise(&utf8(&assert.get_output().stderr), &world);
    insta::assert_snapshot!(format!("explain_day{DAY}"), narration);
    if DAY == 14 {
        world.tiny_docker(["network", "rm", "back"]).assert().success();
    }
}

/// Day 12: an image of two layers, `lab/web:v1`.
#[cfg(feature = "day12-images")]
fn load_an_image(world: &World) {
    use common::layout::{Layout, Packed, tar_of, tar_with};
    let mut layout = Layout::new(world, "layout");
    let layers =
        [tar_of(&common::busybox()), tar_with(&[("srv/", 0o755, b""), ("srv/file", 0o644, b"a file\n")])];
    let layers = layers.map(|tar| layout.layer(&tar, Packed::Gzip));
    let config =
        serde_json::json!({"Entrypoint": ["busybox"], "Cmd": ["sh"], "User": "app", "WorkingDir": "/srv"});
    let manifest = layout.image(&layers, config);
    layout.tag("docker.io/lab/web:v1", &manifest);
    let archive = world.dir().join("web.tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker(["load", "-i", archive.to_str().unwrap()]).assert().success();
}

/// Day 9: as on a fresh machine. Forwarding stays on once a container has needed it.
fn forward_nothing() {
    if DAY >= 9 {
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    }
}

// In parts: a test has five minutes, and a busy machine takes three times as long for it.
#[test]
#[ignore = "privileged: make vm-test"]
fn transcripts_of_the_book_are_what_happens() {
    replay_all(|name| !name.contains("-by-hand") && !name.contains("-broken-"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn transcripts_of_the_book_by_hand_are_what_happens() {
    replay_all(|name| name.contains("-by-hand"));
}

#[test]
#[cfg(feature = "day9-net")]
#[ignore = "privileged: make vm-test"]
fn transcripts_of_the_book_of_broken_networks_are_what_happens() {
    // Later days have none.
    if DAY == 9 {
        replay_all(|name| name.contains("-broken-"));
    }
}

/// Whoever repairs one of these worlds must be able to see it.
#[test]
#[cfg(feature = "day9-net")]
fn each_broken_network_of_the_book_ends_repaired() {
    for world in 1..=8 {
        let file = format!("{}/tests/transcripts/day9-broken-{world}.console", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&file).unwrap();
        let (_, last_check) = text.rsplit_once("$ broken.sh check").unwrap();
        let answers = last_check.lines().filter(|line| line.ends_with(" yes")).count();
        assert_eq!(answers, 6, "layers that work at the end of {file}: {last_check}");
    }
}

#[test]
#[cfg(feature = "day9-net")]
#[ignore = "privileged: make vm-test"]
fn broken_sh_says_what_it_expects() {
    for (words, expected) in [
        (&["watch"][..], "broken.sh watch lab0"),
        (&["watch", "nothing"], "there is no interface nothing"),
        (&["watch", "eth0", "nowhere"], "there is no namespace nowhere"),
        (&["9"], "expected 1 to 8"),
        (&["chekc"], "expected 1 to 8, any, check"),
    ] {
        let mut command = assert_cmd::Command::new("bash");
        command
            .args(["-c", include_str!("../days/day9-net/broken.sh"), "broken.sh"])
            .args(words)
            .assert()
            .code(1)
            .stderr(predicates::str::contains(expected));
    }
}

/// Replays the transcripts of this day whose name `is_wanted`.
fn replay_all(is_wanted: impl Fn(&str) -> bool) {
    let transcripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(&transcripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.starts_with(&format!("day{DAY}-")) && is_wanted(&name)
    });
    files.sort();
    assert!(!files.is_empty(), "no transcript of day {DAY} in {transcripts:?}");

    let mut changed = Vec::new();
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let actual = replay(&expected);
        if actual != expected && std::env::var_os("TINY_DOCKER_UPDATE").is_some_and(|value| !value.is_empty())
        {
            fs::write(&file, actual).unwrap();
        } else if actual != expected {
            changed.push(format!("{}: expected\n{expected}\nbut it says\n{actual}", file.display()));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n\n"));
}

/// Types the commands of `transcript`, its lines that begin with `$ ` (and those
/// after them with `> `), into one shell. Returns what is then on the screen.
fn replay(transcript: &str) -> String {
    // Day 17, on a disk: files in memory can be shown as somebody else's from Linux 6.3 on only.
    #[cfg(feature = "day17-userns")]
    // SAFETY: all tests set the same, and each waits for its turn.
    unsafe {
        std::env::set_var("TMPDIR", "/var/tmp");
    }
    // Day 18's place stays for the next container, and would look left behind.
    #[cfg(feature = "day18-oci")]
    if common::in_the_vm() {
        let _ = fs::create_dir("/run/tiny-runc");
    }
    let world = World::new();
    forward_nothing();
    if let Some(all) = std::env::var_os("TINY_DOCKER_ROOTFS") {
        symlink(all, world.dir().join("rootfs")).unwrap();
    }
    let mut commands: Vec<String> = Vec::new();
    for line in transcript.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.into());
        } else if let (Some(more), Some(command)) = (line.strip_prefix("> "), commands.last_mut()) {
            *command += &format!("\n{more}");
        }
    }
    // The separator is a character that no program prints; `$?` stays as it was.
    let separator = "status=$?; printf '\\036'; (exit $status)";
    let state = world.dir().join("state");
    let script: String = commands.iter().map(|command| format!("{separator}\n{command}\n")).collect();
    let script = script.replace(STATE, &state.to_string_lossy());
    let script_file = world.dir().join(".transcript");
    fs::write(&script_file, script).unwrap();

    // stdout and stderr are one file, in the order in which they are written.
    let screen_file = world.dir().join(".screen");
    let screen = fs::File::create(&screen_file).unwrap();
    let bin = world.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(common::binary(), bin.join("tiny-docker")).unwrap();
    #[cfg(feature = "day18-oci")]
    symlink(env!("CARGO_BIN_EXE_tiny-runc"), bin.join("tiny-runc")).unwrap();
    #[cfg(feature = "day9-net")]
    {
        use std::os::unix::fs::PermissionsExt;
        // Day 9's broken networks, as the classroom has them.
        fs::write(bin.join("broken.sh"), include_str!("../days/day9-net/broken.sh")).unwrap();
        fs::set_permissions(bin.join("broken.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let mut shell = Command::new("bash");
    shell
        .arg(script_file)
        .current_dir(world.dir())
        .env("PATH", path)
        .env("TERM", "xterm")
        .env("HOME", "/root");
    shell.stdin(Stdio::null()).stdout(screen.try_clone().unwrap()).stderr(screen);
    shell.status().unwrap();

    let screen = fs::read_to_string(screen_file).unwrap();
    let outputs = screen.split('\u{1e}').skip(1);
    let said: Vec<_> = commands.iter().zip(outputs).collect();
    assert_eq!(said.len(), commands.len(), "the shell ended early:\n{screen}");
    let text: String = said
        .iter()
        .map(|(command, output)| format!("$ {}\n{output}", command.replace('\n', "\n> ")))
        .collect();
    // As if tiny-docker were installed, and the commands typed.
    let text = text.replace(&*bin.to_string_lossy(), "/usr/local/bin");
    let text = normalise(&text, &world);
    number_namespaces(&text.lines().map(as_typed).collect::<String>())
}

/// Where the state is for who reads the book.
const STATE: &str = "/var/lib/tiny-docker";

/// What differs from run to run, made the same: places, ids, process ids, times.
fn normalise(text: &str, world: &World) -> String {
    let state = world.dir().join("state");
    let text = text.replace(&*state.to_string_lossy(), STATE);
    let namespace = regex::Regex::new(r"/run/tiny-docker/net/\d+").unwrap();
    let text = namespace.replace_all(&text, "/run/tiny-docker/net/4026531840");
    let text = text.replace(&*world.dir().to_string_lossy(), "/home/learner");
    // Of a digest the first twelve digits, as `images` shows them: what is in no two machines the
    // same, such as the distribution's busybox, then gets a number as ids do.
    let digest = regex::Regex::new(r"\b([0-9a-f]{12})[0-9a-f]{52}\b").unwrap();
    let text = digest.replace_all(&text, "$1…");
    // A network's bridge, called by the beginning of its id, and the port of its name server.
    let text = one_after_the_other(&text, r"\btd-[0-9a-f]{6}\b", |n| {
        format!("td-{:06x}", (n as u64 + 1) * 0x5b_7c21 % (1 << 24))
    });
    let port = regex::Regex::new(r"(127\.0\.0\.11:53 to port |127\.0\.0\.11:)\d{4,5}\b").unwrap();
    let text = port.replace_all(&text, "${1}40053");
    let text = one_after_the_other(&text, r"\b[0-9a-f]{12}\b", |n| {
        // No two of them begin alike.
        format!("{:012x}", (n as u64 + 4) * 0x3f2a_81c0_9b7d % (1 << 48))
    });
    let text = one_after_the_other(&text, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", |n| {
        format!("2026-05-12T10:00:{:02}.{:09}Z", n % 60, 250_000_000 + n)
    });
    let ids = r#"(?:pid": |pidfd_send_signal\(|kill\(|kill -s \w+ |netns )\d+"#;
    let text = one_after_the_other(&text, ids, |n| format!("{}", 4711 + n));
    let text = one_after_the_other(&text, r#"start_time": \d+"#, |_| "50321".into());
    let text = one_after_the_other(&text, r#"boot_id": "[0-9a-f-]{36}"#, |_| "\"8f0c…".into());
    // What `time` says of `stop -t 3`: all the time that it waits, or next to none of it. The
    // rest is how fast this machine is.
    let seconds = regex::Regex::new(r"(?m)^(\d+) s$").unwrap();
    let text = seconds.replace_all(
        &text,
        |took: &regex::Captures| {
            if took[1].parse::<u32>().unwrap() < 3 { "0 s" } else { "3 s" }
        },
    );
    // The narration is folded anew: what is in it now is longer or shorter.
    let narration =
        regex::Regex::new(r"(?m)^\[day (\d+)\] (\w+) +(.*(?:\n {20}.*)*)\n {16}# (.*(?:\n {20}.*)*)\n")
            .unwrap();
    let text = narration.replace_all(&text, |told: &regex::Captures| {
        let unfolded = |part: &str| part.replace("\n                    ", " ");
        tiny_docker_rs::explain::narration(
            told[1].parse().unwrap(),
            &told[2],
            &unfolded(&told[3]),
            &unfolded(&told[4]),
        )
    });
    let (mut tidied, mut table) = (String::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        if line.starts_with("CONTAINER ID ")
            || (!table.is_empty() && line.chars().take(12).all(|c| c.is_ascii_hexdigit()))
        {
            table.push(line.trim_end());
        } else {
            tidied += &tidy(&std::mem::take(&mut table));
            tidied += line;
        }
    }
    tidied + &tidy(&table)
}

/// A table of `ps` or `stats` with the same process ids, times and sizes in every run.
fn tidy(table: &[&str]) -> String {
    let Some(head) = table.first() else { return String::new() };
    let mut names = match head.contains("CPU %") {
        true => vec!["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS"],
        false if head.contains("ADDRESS") => {
            vec!["CONTAINER ID", "NAME", "PID", "STATUS", "CREATED", "ADDRESS", "COMMAND"]
        }
        false => vec!["CONTAINER ID", "NAME", "PID", "STATUS", "CREATED", "COMMAND"],
    };
    if head.contains(" IMAGE ") {
        names.insert(1, "IMAGE");
    }
    // PID, or CPU %.
    let first = names.iter().position(|name| *name == "NAME").unwrap() + 1;
    let starts: Vec<usize> = names.iter().map(|name| head.find(name).unwrap()).collect();
    let ago = regex::Regex::new(r"(Less than a second|1 second|\d+ seconds)").unwrap();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (number, line) in table.iter().enumerate() {
        let cell = |column: usize| {
            let end = starts.get(column + 1).copied().unwrap_or(line.len()).min(line.len());
            line[starts[column].min(end)..end].trim_end().to_string()
        };
        let mut row: Vec<String> = (0..names.len()).map(cell).collect();
        if row[first].parse::<u32>().is_ok() {
            row[first] = format!("{}", 4710 + number);
        }
        if let Some(percent) = row[first].strip_suffix('%').and_then(|text| text.parse::<f64>().ok()) {
            // Idle, or busy with half a processor: how much that really is, and what a
            // shell needs, varies. Of 64 MiB, the book's limit, 824 KiB are so much.
            row[first] = if percent < 10.0 { "0.00%" } else { "50.00%" }.into();
            row[first + 1] =
                row[first + 1].split_once(" / ").map(|(_, limit)| format!("824KiB / {limit}")).unwrap();
            if row[first + 2] != "--" {
                row[first + 2] = "1.26%".into();
            }
        }
        for column in [first + 1, first + 2] {
            row[column] = ago.replace(&row[column], "2 seconds").into_owned();
        }
        rows.push(row);
    }
    let widths: Vec<usize> =
        (0..names.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap()).collect();
    let line = |row: Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.into_iter().map(line).collect()
}

/// Replaces what `pattern` finds, up to its last word character, by what `name`
/// says for the first, second, … different one. Words before a number stay.
fn one_after_the_other(text: &str, pattern: &str, name: impl Fn(usize) -> String) -> String {
    let pattern = regex::Regex::new(pattern).unwrap();
    let mut seen: Vec<String> = Vec::new();
    let replaced = pattern.replace_all(text, |found: &regex::Captures| {
        let found = found[0].to_string();
        let kept = found.rfind([' ', '(']).map_or(0, |at| at + 1);
        let value = found[kept..].to_string();
        if !seen.contains(&value) {
            seen.push(value.clone());
        }
        let number = seen.iter().position(|one| *one == value).unwrap();
        format!("{}{}", &found[..kept], name(number))
    });
    replaced.into_owned()
}

/// A script's shell begins its messages with the script's name and line, one
/// that is typed into with its own name; and it says less of a killed command.
fn as_typed(line: &str) -> String {
    let message =
        line.strip_prefix("/home/learner/.transcript: line ").and_then(|rest| rest.split_once(": "));
    match message {
        None => format!("{line}\n"),
        Some((_, killed)) if killed.contains(" Killed ") => "Killed\n".into(),
        Some((_, message)) => format!("bash: {message}\n"),
    }
}

/// Namespaces are known by inode numbers, which differ from run to run. What
/// matters is which are the same: number them in the order they appear.
fn number_namespaces(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(":[") {
        write!(result, "{before}:[").unwrap();
        rest = after;
        let digits = after.split(']').next().unwrap_or_default();
        if digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            // Of different kinds, two may have the same number at different times.
            let kind = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let name = format!("{kind}{digits}");
            if !seen.contains(&name) {
                seen.push(name.clone());
            }
            let number = seen.iter().position(|one| *one == name).unwrap();
            write!(result, "{}", 4026531841 + number).unwrap();
            rest = &after[digits.len()..];
        }
    }
    result + rest
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
