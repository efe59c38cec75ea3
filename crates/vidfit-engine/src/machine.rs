//! What the machine has. The one place that asks the operating system.

/// Bytes of RAM that this process may still take: what is free or can be freed, within the limit
/// of its cgroup where there is one. `None` where the system does not say.
pub fn available_ram_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 => Some(free.min(limits.free_memory)),
        _ => Some(free),
    }
}

/// The most RAM that this process has held at any time. `None` where the system does not say.
pub fn peak_ram_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}
