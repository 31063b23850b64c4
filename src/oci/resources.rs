//! Day 18: from the specification's resources, which are those of cgroups of version 1, to files of version
//! 2. (config-linux.md; kernel: admin-guide/cgroup-v2; runc, docs/cgroup-v2.md has the same formulas)

use anyhow::bail;

use crate::error::Result;

use super::spec::resources::{BlockIo, Cpu, Memory, Resources, Throttle};

/// Files of a cgroup, and what is written into them, in this order.
pub type Files = Vec<(String, String)>;

/// What `resources` say.
pub fn files(resources: &Resources) -> Result<Files> {
    let mut files = Files::new();
    let mut add = |name: &str, value: Option<String>| files.extend(value.map(|value| (name.into(), value)));
    if let Some(memory) = &resources.memory {
        add("memory.max", memory.limit.filter(|limit| *limit != 0).map(bytes));
        add("memory.swap.max", swap(memory)?);
        add("memory.low", memory.reservation.filter(|bytes| *bytes != 0).map(bytes));
    }
    if let Some(cpu) = &resources.cpu {
        add("cpu.idle", cpu.idle.map(|idle| idle.to_string()));
        add("cpu.weight", cpu.shares.filter(|shares| *shares != 0).map(weight));
        add("cpu.max", quota(cpu));
        add("cpu.max.burst", cpu.burst.map(|burst| burst.to_string()));
        add("cpuset.cpus", cpu.cpus.clone().filter(|list| !list.is_empty()));
        add("cpuset.mems", cpu.mems.clone().filter(|list| !list.is_empty()));
    }
    let pids = resources.pids.as_ref().and_then(|pids| pids.limit);
    add("pids.max", pids.filter(|limit| *limit != 0).map(bytes));
    for limit in &resources.hugepage_limits {
        add(&format!("hugetlb.{}.max", limit.page_size), Some(limit.limit.to_string()));
    }
    for (adapter, rdma) in resources.rdma.iter().flatten() {
        let number = |name: &str, value: Option<u32>| {
            value.map(|value| format!(" {name}={value}")).unwrap_or_default()
        };
        let (handles, objects) =
            (number("hca_handle", rdma.hca_handles), number("hca_object", rdma.hca_objects));
        add("rdma.max", Some(format!("{adapter}{handles}{objects}")));
    }
    resources.block_io.iter().for_each(|io| files.extend(block_io(io)));
    files.extend(resources.unified.clone().into_iter().flatten());
    if let Some((name, _)) = files.iter().find(|(name, _)| name.contains('/') || name.contains("..")) {
        bail!("linux.resources: {name:?} is no file of a cgroup");
    }
    Ok(files)
}

/// -1 is no limit.
fn bytes(number: i64) -> String {
    if number < 0 { "max".into() } else { number.to_string() }
}

// ANCHOR: swap
/// Written is memory and swap together; the file is swap alone.
fn swap(memory: &Memory) -> Result<Option<String>> {
    // ANCHOR: day18_task1_swap_solution
    match (memory.swap, memory.limit) {
        (None | Some(0), _) => Ok(None),
        (Some(..0), _) => Ok(Some("max".into())),
        (Some(sum), Some(limit @ 1..)) if sum >= limit => Ok(Some((sum - limit).to_string())),
        (Some(sum), limit) => bail!(
            "linux.resources.memory.swap is {sum}, which is memory and swap together; expected a limit of memory \
             that is no more, and it is {limit:?}"
        ),
    }
    // ANCHOR_END: day18_task1_swap_solution
}
// ANCHOR_END: swap

// ANCHOR: weight
/// From 2 … 262144 to 1 … 10000.
fn weight(shares: u64) -> String {
    // ANCHOR: day18_task1_weight_solution
    (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).to_string()
    // ANCHOR_END: day18_task1_weight_solution
}
// ANCHOR_END: weight

// ANCHOR: quota
fn quota(cpu: &Cpu) -> Option<String> {
    // ANCHOR: day18_task1_quota_solution
    let period = cpu.period.filter(|period| *period != 0);
    match (cpu.quota.filter(|quota| *quota != 0), period) {
        (None, None) => None,
        (Some(quota @ 1..), period) => Some(format!("{quota} {}", period.unwrap_or(100_000))),
        (_, period) => Some(format!("max {}", period.unwrap_or(100_000))),
    }
    // ANCHOR_END: day18_task1_quota_solution
}
// ANCHOR_END: quota

fn block_io(io: &BlockIo) -> Files {
    let mut files = Files::new();
    // From 10 … 1000 to 1 … 10000.
    let weight = |weight: u16| 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
    files.extend(
        io.weight
            .filter(|number| *number != 0)
            .map(|number| ("io.weight".into(), format!("default {}", weight(number)))),
    );
    for one in &io.weight_device {
        let line = |number| format!("{}:{} {}", one.major, one.minor, weight(number));
        files.extend(one.weight.map(|number| ("io.weight".into(), line(number))));
    }
    let limits: [(&str, &[Throttle]); 4] = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (name, devices) in limits {
        let line = |one: &Throttle| format!("{}:{} {name}={}", one.major, one.minor, one.rate);
        files.extend(devices.iter().map(|one| ("io.max".into(), line(one))));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_writes_becomes_files_of_version_2() {
        let text = r#"{"memory": {"limit": 67108864, "swap": 134217728}, "cpu": {"shares": 1024, "quota": 50000,
            "period": 100000}, "pids": {"limit": 50}, "unified": {"memory.high": "1000"}}"#;
        let files = serde_json::from_str(text).map(|resources| files(&resources).unwrap_or_default());
        let files = files.unwrap_or_default();
        let lines: Vec<String> = files.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "memory.max=67108864",
            "memory.swap.max=67108864",
            "cpu.weight=39",
            "cpu.max=50000 100000",
            "pids.max=50",
            "memory.high=1000",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn minus_one_is_no_limit() {
        assert_eq!(bytes(-1), "max");
        assert_eq!(quota(&Cpu { quota: Some(-1), ..Cpu::default() }).as_deref(), Some("max 100000"));
        assert_eq!(
            swap(&Memory { swap: Some(-1), ..Memory::default() }).ok().flatten().as_deref(),
            Some("max")
        );
        assert!(swap(&Memory { swap: Some(1), limit: Some(2), ..Memory::default() }).is_err());
    }
}
