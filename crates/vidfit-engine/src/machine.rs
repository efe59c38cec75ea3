//! What the machine has. The one place that asks the operating system.

use std::path::Path;
use std::time::Instant;

/// Bytes of RAM that this process may still take: what is free or can be freed, within the limits
/// of its control groups where there are any. `None` where the system does not say.
pub fn available_ram_bytes() -> Option<u64> {
    ram().map(|ram| ram.available_bytes)
}

/// What there is of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ram {
    /// What this process could have at most: the machine's RAM, or what its control groups allow.
    pub total_bytes: u64,
    /// What it may still take; see [`available_ram_bytes`].
    pub available_bytes: u64,
    /// The rest.
    pub used_bytes: u64,
    /// What the machine has, whatever the limits.
    pub machine_bytes: u64,
    /// The tightest limit of its control groups, if one is below what the machine has.
    pub limit_bytes: Option<u64>,
}

/// What there is of RAM. `None` where the system does not say.
pub fn ram() -> Option<Ram> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let (machine_bytes, free_bytes) = (system.total_memory(), system.available_memory());
    Some(Ram::within(machine_bytes, free_bytes, groups(Path::new("/"))))
}

impl Ram {
    fn within(machine_bytes: u64, free_bytes: u64, groups: Option<Room>) -> Ram {
        let limit_bytes =
            groups.map(|room| room.limit_bytes).filter(|&limit| limit < machine_bytes);
        let total_bytes = limit_bytes.unwrap_or(machine_bytes);
        let available_bytes =
            groups.map_or(free_bytes, |room| room.available_bytes.min(free_bytes));
        let available_bytes = available_bytes.min(total_bytes);
        let used_bytes = total_bytes - available_bytes;
        Ram { total_bytes, available_bytes, used_bytes, machine_bytes, limit_bytes }
    }
}

/// What the processor calls itself. `None` where the system does not say.
pub fn processor_name() -> Option<String> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let name = system.cpus().first()?.brand().trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Tells the time of a work apart from what other programs took of it.
pub struct Stopwatch {
    started: Instant,
    waited_seconds: Option<f64>,
}

/// What a [`Stopwatch`] has measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lap {
    /// The time that passed, in seconds.
    pub wall_seconds: f64,
    /// The time that would have passed without other programs, where the system tells how long the
    /// threads of this one have waited for a processor; the same as above where it does not.
    pub seconds: f64,
}

impl Stopwatch {
    /// Begins.
    pub fn start() -> Stopwatch {
        let waited_seconds = waited_for_processor_seconds();
        Stopwatch { started: Instant::now(), waited_seconds }
    }

    /// Ends a work that `threads` threads took from one pile: what one of them could not do while
    /// it waited, all did, so that each wait made the whole late by its share.
    pub fn stop(&self, threads: usize) -> Lap {
        let wall_seconds = self.started.elapsed().as_secs_f64();
        let waited = waited_for_processor_seconds().zip(self.waited_seconds);
        let waited = waited.map_or(0.0, |(after, before)| (after - before).max(0.0));
        // A thread that is woken waits some microseconds: that belongs to a short work.
        let seconds = match wall_seconds {
            ..1e-3 => wall_seconds,
            _ => (wall_seconds - waited / threads as f64).max(0.1 * wall_seconds),
        };
        Lap { wall_seconds, seconds }
    }
}

/// How long the threads of this process have been ready to run while others had the processors,
/// all together, in seconds. `None` where the system does not say.
fn waited_for_processor_seconds() -> Option<f64> {
    let waited = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        // Nanoseconds of running and of waiting, and how often.
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        Some(text.split(' ').nth(1)?.parse::<f64>().ok()? * 1e-9)
    };
    std::fs::read_dir("/proc/self/task").ok()?.map(waited).sum()
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

/// What control groups allow, and leave of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    limit_bytes: u64,
    available_bytes: u64,
}

/// The least that this process's control group or one above it allows, and the least that one
/// leaves, which need not be the same. Pages of files are not counted as used: the weights that an
/// earlier run mapped are among them. `None` if no group has a limit. `root` is where the file
/// system begins.
fn groups(root: &Path) -> Option<Room> {
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
        levels.filter_map(|group| room_in(group, &names)).reduce(Room::least)
    };
    groups.lines().filter_map(in_line).reduce(Room::least)
}

impl Room {
    fn least(self, other: Room) -> Room {
        Room {
            limit_bytes: self.limit_bytes.min(other.limit_bytes),
            available_bytes: self.available_bytes.min(other.available_bytes),
        }
    }
}

/// What one group allows and leaves. `None` if it has no limit.
fn room_in(group: &Path, names: &Names) -> Option<Room> {
    let number = |name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit_bytes = number(names.limit)?;
    let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = statistics.lines().filter_map(|line| line.split_once(' '));
    let cached = cached.filter(|(name, _)| names.cached.contains(name));
    let cached: u64 = cached.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).sum();
    let held = number(names.used).unwrap_or(0).saturating_sub(cached);
    Some(Room { limit_bytes, available_bytes: limit_bytes.saturating_sub(held) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file system with these files says.
    fn room(files: &[(&str, &str)]) -> Option<Room> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        groups(root.path())
    }

    fn available(files: &[(&str, &str)]) -> Option<u64> {
        room(files).map(|room| room.available_bytes)
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
    fn the_limit_of_a_group_counts_as_the_machine() {
        let files = [
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1000\n"),
            ("sys/fs/cgroup/outer/memory.current", "900\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "600\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "50\n"),
        ];
        let limits = room(&files);
        assert_eq!(limits, Some(Room { limit_bytes: 600, available_bytes: 100 }));
        let ram = Ram::within(5000, 4000, limits);
        assert_eq!((ram.total_bytes, ram.available_bytes, ram.used_bytes), (600, 100, 500));
        assert_eq!((ram.machine_bytes, ram.limit_bytes), (5000, Some(600)));
        // A limit above what the machine has, as version 1 writes for none.
        let ram = Ram::within(500, 400, limits);
        assert_eq!((ram.total_bytes, ram.available_bytes, ram.limit_bytes), (500, 100, None));
        let ram = Ram::within(500, 400, None);
        assert_eq!((ram.total_bytes, ram.available_bytes, ram.used_bytes), (500, 400, 100));
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
