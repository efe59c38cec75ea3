//! What the machine has. The one place that asks the operating system.

use std::path::Path;

/// Bytes of RAM that this process may still take: what is free or can be freed, within the limits
/// of its control groups where there are any. `None` where the system does not say.
pub fn available_ram_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    Some(available_in_cgroups(Path::new("/")).map_or(free, |limited| limited.min(free)))
}

/// The most RAM that this process has held at any time. `None` where the system does not say.
pub fn peak_ram_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// What one version of control groups calls its files.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// Entries of `memory.stat`: pages of files, which the kernel frees before it refuses memory.
    cached: [&'static str; 2],
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

const V2: Names =
    Names { limit: "memory.max", used: "memory.current", cached: ["inactive_file", "active_file"] };

/// The least that this process's control group or one above it leaves. Pages of files are not
/// counted as used: the weights that an earlier run mapped are among them. `None` if no group
/// has a limit. `root` is where the file system begins.
fn available_in_cgroups(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    // A line is `number:controllers:path`; version 2 has no controllers.
    let in_line = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (mount, names) = match controllers {
            "" => (root.join("sys/fs/cgroup"), V2),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("sys/fs/cgroup/memory"), V1)
            }
            _ => return None,
        };
        // In a container the path may be the host's, of which only the mount itself is seen.
        let own = mount.join(path.trim_start_matches('/'));
        let levels = own.ancestors().take_while(|group| group.starts_with(&mount));
        levels.filter_map(|group| available_in(group, &names)).min()
    };
    groups.lines().filter_map(in_line).min()
}

/// What one group leaves of its limit. `None` if it has none.
fn available_in(group: &Path, names: &Names) -> Option<u64> {
    let number = |name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?;
    let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = statistics.lines().filter_map(|line| line.split_once(' '));
    let cached = cached.filter(|(name, _)| names.cached.contains(name));
    let cached: u64 = cached.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).sum();
    Some(limit.saturating_sub(number(names.used).unwrap_or(0).saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file system with these files says.
    fn available(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        available_in_cgroups(root.path())
    }

    #[test]
    fn the_tightest_of_nested_groups_counts() {
        let mut files = vec![
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1000\n"),
            ("sys/fs/cgroup/outer/memory.current", "700\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "100\n"),
        ];
        assert_eq!(available(&files), Some(300));
        files[3].1 = "350\n";
        assert_eq!(available(&files), Some(250));
        files[4].1 = "400\n";
        assert_eq!(available(&files), Some(0), "more in use than a lowered limit allows");
    }

    #[test]
    fn pages_of_files_are_not_used_up() {
        let stat = "anon 50\nfile 840\ninactive_file 600\nactive_file 200\ninactive_anon 7\n";
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "900\n"),
            ("sys/fs/cgroup/memory.stat", stat),
        ];
        assert_eq!(available(&files), Some(900));
    }

    #[test]
    fn version_1_counts_the_groups_below_as_well() {
        let stat =
            "inactive_file 1\nactive_file 2\ntotal_inactive_file 300\ntotal_active_file 40\n";
        let files = [
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/\n4:hugetlb,memory:/job\n1:name=systemd:/\n0::/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/job/memory.stat", stat),
        ];
        assert_eq!(available(&files), Some(840));
    }

    #[test]
    fn a_container_sees_its_group_at_the_mount() {
        let files = [
            ("proc/self/cgroup", "4:memory:/docker/0123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
        ];
        assert_eq!(available(&files), Some(500));
    }

    #[test]
    fn without_a_limit_nothing_is_said() {
        assert_eq!(available(&[]), None);
        assert_eq!(available(&[("proc/self/cgroup", "no group\n0::/gone\n")]), None);
        let endless = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(available(&endless), None);
    }
}
