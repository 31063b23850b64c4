//! Day 18: where systemd has the tree of cgroups, it is asked for one, over D-Bus: a *scope*, a unit for
//! processes that somebody else has started. What makes cgroups behind its back, it may take away.
//! (systemd.scope(5); org.freedesktop.systemd1(5))

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use nix::unistd::Pid;
use tokio::runtime::Builder;
use tokio::time::timeout;
use zbus::message::Type;
use zbus::wire::{ObjectPath, OwnedObjectPath, Variant};
use zbus::{Connection, MatchRule, Message, MessageStream, connection};

use crate::error::Result;
use crate::explain::step;

use super::DAY;
use super::numbers::range;
use super::resources::Files;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const ITS_PATH: &str = "/org/freedesktop/systemd1";

/// How long systemd may take. It gives a scope 90 s to end, if somebody is still in there.
const PATIENCE: Duration = Duration::from_secs(120);

type Properties<'a> = Vec<(&'a str, Variant<'a>)>;

/// Has systemd make the scope `unit` in `slice`, with `child` in it, and `limits`, which it would else undo
/// when it reads its configuration anew. Comes back when the cgroup is there.
pub fn start_scope(unit: &str, slice: &str, child: Pid, limits: &Files) -> Result<()> {
    let describe = || {
        let call = format!("D-Bus: StartTransientUnit({unit:?}, Slice={slice}, PIDs={child}, Delegate=yes)");
        (call, format!("systemd-run --scope --unit {unit} --slice {slice} -p Delegate=yes …"))
    };
    step(DAY, describe, || {
        let mut properties = properties(limits);
        properties.extend([
            ("Description", Variant::from(format!("container of tiny-runc: {unit}"))),
            ("Slice", slice.into()),
            ("PIDs", vec![child.as_raw() as u32].into()),
            // Whatever is below is the container's.
            ("Delegate", true.into()),
            // It ends when the container does, and not before what a service of its slice needs.
            ("DefaultDependencies", false.into()),
            // One that has failed is not remembered.
            ("CollectMode", "inactive-or-failed".into()),
        ]);
        let nothing: Vec<(&str, Properties)> = vec![];
        job("StartTransientUnit", &(unit, "fail", properties, nothing))
    })
    .with_context(|| format!("systemd makes no scope {unit}"))
}

/// Has systemd end the scope `unit`. One that is gone is no error.
pub fn stop_scope(unit: &str) -> Result<()> {
    let describe = || (format!("D-Bus: StopUnit({unit:?})"), format!("systemctl stop {unit}"));
    step(DAY, describe, || job("StopUnit", &(unit, "replace")).or_else(|error| if_gone(error, ())))
}

/// Has systemd remember `limits` of the scope `unit`.
pub fn set_limits(unit: &str, limits: &Files) -> Result<()> {
    let describe = || {
        (format!("D-Bus: SetUnitProperties({unit:?})"), format!("systemctl set-property --runtime {unit} …"))
    };
    step(DAY, describe, || {
        with_connection(async |connection| {
            call(&connection, "SetUnitProperties", &(unit, true, properties(limits))).await.map(drop)
        })
    })
}

fn if_gone<T>(error: anyhow::Error, instead: T) -> Result<T> {
    match error.downcast_ref() {
        Some(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with(".NoSuchUnit") => Ok(instead),
        _ => Err(error),
    }
}

/// Files of a cgroup by systemd's names. What it has no name for, it leaves alone.
/// (systemd.resource-control(5))
fn properties(limits: &Files) -> Properties<'static> {
    let number = |value: &str| if value == "max" { Some(u64::MAX) } else { value.parse().ok() };
    let mut all = Properties::new();
    for (file, value) in limits {
        let name = match file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpuset.cpus" | "cpuset.mems" => {
                let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                all.push((name, bits(value).into()));
                continue;
            }
            "cpu.max" => {
                let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
                let period: u64 = period.parse().unwrap_or(100_000);
                // Per second; microseconds, as the file has them; and whole percents, upwards, as systemd has them.
                let quota = number(quota).map(|quota| match quota {
                    u64::MAX => quota,
                    quota => (quota.saturating_mul(1_000_000) / period.max(1)).div_ceil(10_000) * 10_000,
                });
                all.extend(quota.map(|quota| ("CPUQuotaPerSecUSec", quota.into())));
                all.push(("CPUQuotaPeriodUSec", period.into()));
                continue;
            }
            _ => continue,
        };
        all.extend(number(value).map(|number| (name, number.into())));
    }
    all
}

/// `0-2,5` as systemd takes it: a bit for each, the lowest byte first. What is no number, the kernel will not
/// have taken either.
fn bits(list: &str) -> Vec<u8> {
    // More processors than any kernel is built for are not meant.
    const MOST: usize = 1 << 16;
    let mut bytes = Vec::new();
    for part in list.split(',') {
        let Some((first, last)) = range(part.trim()) else { continue };
        for number in first..=last.min(MOST) {
            let at = number / 8;
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] |= 1 << (number % 8);
        }
    }
    bytes
}

/// Calls `method`, which begins a job, and waits for the job's end.
fn job<B: serde::Serialize + zbus::DynamicType>(method: &str, body: &B) -> Result<()> {
    with_connection(async |connection| {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        // Before the job begins: it may have ended when its name is known.
        let mut ended = MessageStream::for_match_rule(rule, &connection, NonZeroUsize::new(1024)).await?;
        call(&connection, "Subscribe", &()).await?;
        let answer = call(&connection, method, body).await?;
        let job: OwnedObjectPath = answer.body().deserialize()?;
        while let Some(message) = ended.next().await {
            let message = message?;
            let body = message.body();
            let (_, path, _, result): (u32, ObjectPath, &str, &str) = body.deserialize()?;
            if path == *job {
                return if result == "done" { Ok(()) } else { Err(anyhow!("its job ended with {result:?}")) };
            }
        }
        bail!("the connection to systemd has ended")
    })
}

async fn call<B: serde::Serialize + zbus::DynamicType>(
    connection: &Connection,
    method: &str,
    body: &B,
) -> Result<Message> {
    Ok(connection.call_method(Some(SYSTEMD), ITS_PATH, Some(MANAGER), method, body).await?)
}

/// The system's bus; no thread is started for it.
fn with_connection<T>(work: impl AsyncFnOnce(Connection) -> Result<T>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build().context("prepare to talk over D-Bus")?;
    // Not zbus's own default, which is in /var/run: where that is no link to /run, nobody listens.
    let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS");
    let address = address.as_deref().unwrap_or("unix:path=/run/dbus/system_bus_socket");
    let talk = async {
        let connection =
            connection::Builder::address(address).build().await.context("connect to the system's D-Bus")?;
        work(connection).await
    };
    runtime
        .block_on(async { timeout(PATIENCE, talk).await })
        .map_err(|_| anyhow!("systemd does not answer"))?
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn a_list_of_processors_is_a_bit_for_each() {
        assert_eq!(bits("0-2,9"), [0b111, 0b10]);
        assert!(bits("").is_empty());
    }
}
