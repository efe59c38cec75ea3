//! The device that videos are made on, as plans and clients see it. Nothing here opens one.

use crate::args::MachineArgs;
use crate::device::{DeviceChoice, cards, planned_target};
use crate::exit::Failure;
use crate::work;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use vidfit_engine::machine::{processor_name, ram};
use vidfit_engine::planner::Target;
use vidfit_engine::running;
use vidfit_server::Gpu;

/// How long what is known of the device holds.
const FRESH: Duration = Duration::from_secs(2);

/// The device of a server.
pub struct Devices {
    machine: MachineArgs,
    queue_dir: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What was free when a plan was made last, and when that was.
    now: Option<(Instant, Target)>,
    /// What was free when no worker was there last.
    idle: Option<Target>,
}

impl Devices {
    /// The device of `machine`, for the worker of the queue in `queue_dir`.
    pub fn new(machine: MachineArgs, queue_dir: &Path) -> Devices {
        Devices { machine, queue_dir: queue_dir.to_owned(), seen: Mutex::default() }
    }

    /// The options that name it, and what of it may be used.
    pub fn machine(&self) -> &MachineArgs {
        &self.machine
    }

    /// The folder of the queue.
    pub fn queue_dir(&self) -> &Path {
        &self.queue_dir
    }

    /// What a job is planned for that waits for its turn: what is free, and what the worker gives back
    /// until then.
    ///
    /// # Errors
    /// Bad input if there is no such device.
    pub fn target(&self) -> Result<Target, Failure> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, target)) = &seen.now
            && when.elapsed() < FRESH
        {
            return Ok(target.clone());
        }
        let now = planned_target(&self.machine, None)?;
        let target = match &seen.idle {
            _ if !work::is_under_way(&self.queue_dir) => {
                seen.idle = Some(now.clone());
                now
            }
            Some(idle) => Target {
                free_bytes: now.free_bytes.max(idle.free_bytes),
                ram_bytes: now.ram_bytes.max(idle.ram_bytes),
                ..now
            },
            None => now,
        };
        seen.now = Some((Instant::now(), target.clone()));
        Ok(target)
    }

    /// Those that there are, and the one that is used.
    pub fn all(&self) -> Vec<Gpu> {
        let used = self.used();
        let budget_bytes = self.target().ok().map(|target| target.budget_bytes());
        let mut all: Vec<Gpu> = cards::examine(false)
            .cards
            .into_iter()
            .map(|card| Gpu {
                id: card.id(),
                used: used == DeviceChoice::Cuda(card.number),
                memory_bytes: Some(card.memory_bytes),
                free_bytes: card.free_bytes,
                budget_bytes: None,
                name: card.name,
            })
            .collect();
        match &used {
            DeviceChoice::Sim(card) => all.push(Gpu {
                id: used.to_string(),
                name: format!("a simulated card ({})", card.spelled),
                used: true,
                memory_bytes: Some(card.memory_bytes),
                free_bytes: Some(
                    card.memory_bytes.saturating_sub(card.overhead_bytes + self.held_bytes()),
                ),
                budget_bytes: None,
            }),
            DeviceChoice::Cpu => {
                let ram = ram();
                all.push(Gpu {
                    id: "cpu".into(),
                    name: processor_name().unwrap_or_else(|| "the CPU".into()),
                    used: true,
                    memory_bytes: ram.as_ref().map(|ram| ram.total_bytes),
                    free_bytes: ram.map(|ram| ram.available_bytes),
                    budget_bytes: None,
                });
            }
            DeviceChoice::Auto | DeviceChoice::Cuda(_) => {}
        }
        all.iter_mut().filter(|gpu| gpu.used).for_each(|gpu| gpu.budget_bytes = budget_bytes);
        all
    }

    /// The device, with `auto` decided.
    fn used(&self) -> DeviceChoice {
        match &self.machine.device {
            DeviceChoice::Auto => {
                cards::find(None).map_or(DeviceChoice::Cpu, |card| DeviceChoice::Cuda(card.number))
            }
            other => other.clone(),
        }
    }

    /// What the jobs of this queue have reserved.
    fn held_bytes(&self) -> u64 {
        let is_ours = |output: &PathBuf| output.starts_with(&self.queue_dir);
        let ours = running::list().into_iter().map(|record| record.job);
        ours.filter(|job| job.output.as_ref().is_some_and(is_ours)).map(|job| job.arena_bytes).sum()
    }
}
