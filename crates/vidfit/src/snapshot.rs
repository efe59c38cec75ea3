//! What the machine does at one moment, for people and for scripts.

use crate::human::{memory_status, size};
use serde_json::{Value, json};
use vidfit_engine::gpus::{GpuProcess, GpuStatus, Gpus, NoGpus, Survey};
use vidfit_engine::machine::{Ram, ram};

/// The machine at one moment.
pub struct Snapshot {
    /// The cards, or why there are none.
    pub gpus: Result<Survey, NoGpus>,
    /// The RAM, where the system tells.
    pub ram: Option<Ram>,
}

impl Snapshot {
    /// Asks the machine.
    pub fn take(gpus: &Result<Gpus, NoGpus>) -> Snapshot {
        let gpus = gpus.as_ref().map(Gpus::survey).map_err(NoGpus::clone);
        Snapshot { gpus, ram: ram() }
    }

    /// A line for each card, with what `more` adds below it, for what does not answer, and for the
    /// RAM.
    pub fn lines(&self, more: impl Fn(&GpuStatus) -> Vec<String>) -> Vec<String> {
        let mut lines = match &self.gpus {
            Ok(survey) => cards(survey, more),
            Err(reason) => vec![reason.to_string()],
        };
        lines.push(match &self.ram {
            Some(ram) => ram_line(ram),
            None => "RAM Status: this system does not say".to_owned(),
        });
        lines
    }

    /// As JSON, with the processes that hold memory where they are asked for.
    pub fn as_json(&self, processes: bool) -> Value {
        let (survey, no_gpus) = match &self.gpus {
            Ok(survey) => (survey.clone(), None),
            Err(reason) => (Survey::default(), Some(reason.to_string())),
        };
        let mut gpus = json!(survey.gpus);
        if !processes {
            let gpus = gpus.as_array_mut().into_iter().flatten();
            for gpu in gpus.filter_map(Value::as_object_mut) {
                gpu.remove("processes");
            }
        }
        json!({ "gpus": gpus, "no_gpus": no_gpus, "faults": survey.faults, "ram": self.ram })
    }
}

fn cards(survey: &Survey, more: impl Fn(&GpuStatus) -> Vec<String>) -> Vec<String> {
    let several = survey.gpus.len() + survey.faults.len() > 1;
    let mut lines = vec![];
    for gpu in &survey.gpus {
        let status = memory_status("VRAM", gpu.used_bytes, gpu.total_bytes);
        lines.push(match several {
            true => format!("{} {}: {status}", gpu.index, gpu.name),
            false => status,
        });
        lines.extend(more(gpu).into_iter().map(|line| format!("  {line}")));
    }
    lines.extend(survey.faults.iter().cloned());
    lines
}

fn ram_line(ram: &Ram) -> String {
    let status = memory_status("RAM", ram.used_bytes, ram.total_bytes);
    match ram.limit_bytes {
        None => status,
        Some(limit) => format!(
            "{status} (its control group may use {} of the machine's {})",
            size(limit),
            size(ram.machine_bytes)
        ),
    }
}

/// A line for each process that holds memory on a card.
pub fn processes(gpu: &GpuStatus) -> Vec<String> {
    let line = |process: &GpuProcess| {
        let name = process.name.as_deref().unwrap_or("(a program that the driver does not name)");
        let held = process.bytes.map_or("an amount that is not told".to_owned(), size);
        format!("{} {name}: {held}", process.pid)
    };
    match &gpu.processes[..] {
        [] => vec!["no process that can be seen holds memory on it".to_owned()],
        processes => processes.iter().map(line).collect(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn gpu(index: u32) -> GpuStatus {
        let gigabytes = |gigabytes: f64| (gigabytes * f64::from(1 << 30)) as u64;
        GpuStatus {
            index,
            name: "NVIDIA GeForce RTX 3090".into(),
            total_bytes: gigabytes(23.7),
            available_bytes: gigabytes(15.5),
            used_bytes: gigabytes(8.2),
            utilisation_percent: Some(97),
            temperature_celsius: Some(64),
            power_watts: None,
            processes: vec![
                GpuProcess { pid: 7, name: Some("python3".into()), bytes: Some(gigabytes(8.0)) },
                GpuProcess { pid: 9, name: None, bytes: None },
            ],
        }
    }

    pub fn snapshot(gpus: Vec<GpuStatus>, faults: &[&str]) -> Snapshot {
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        let (total_bytes, used_bytes) = (16 << 30, 4 << 30);
        let ram = Ram {
            total_bytes,
            used_bytes,
            available_bytes: total_bytes - used_bytes,
            machine_bytes: 64 << 30,
            limit_bytes: Some(total_bytes),
        };
        Snapshot { gpus: Ok(Survey { gpus, faults }), ram: Some(ram) }
    }

    const VRAM: &str = "VRAM Status: 8.20GB / 23.70GB used (35%), 15.50GB available";
    const RAM: &str = "RAM Status: 4.00GB / 16.00GB used (25%), 12.00GB available (its control group \
                       may use 16.00 GB of the machine's 64.00 GB)";

    #[test]
    fn one_card_has_the_line_to_itself_and_several_are_named() {
        assert_eq!(snapshot(vec![gpu(0)], &[]).lines(|_| vec![]), [VRAM, RAM]);
        let lines = snapshot(vec![gpu(0), gpu(1)], &["card 2 is gone"]).lines(|_| vec![]);
        let first = format!("0 NVIDIA GeForce RTX 3090: {VRAM}");
        let second = format!("1 NVIDIA GeForce RTX 3090: {VRAM}");
        assert_eq!(lines, [&first, &second, "card 2 is gone", RAM]);
    }

    #[test]
    fn who_holds_memory_stands_below_the_card() {
        let lines = snapshot(vec![gpu(0)], &[]).lines(processes);
        let unnamed = "  9 (a program that the driver does not name): an amount that is not told";
        assert_eq!(lines, [VRAM, "  7 python3: 8.00 GB", unnamed, RAM]);
    }

    #[test]
    fn json_has_processes_only_where_they_are_asked_for() {
        let snapshot = snapshot(vec![gpu(0)], &["card 1 is gone"]);
        let with = snapshot.as_json(true);
        assert_eq!(with["gpus"][0]["processes"][0]["name"], "python3");
        let without = snapshot.as_json(false);
        assert_eq!(without["gpus"][0].get("processes"), None);
        assert_eq!(without["gpus"][0]["index"], 0);
        assert_eq!(without["faults"][0], "card 1 is gone");
        assert_eq!(without["no_gpus"], Value::Null);
        assert_eq!(without["ram"]["limit_bytes"], 16u64 << 30);
    }

    #[test]
    fn a_machine_without_cards_says_why() {
        let mut snapshot = snapshot(vec![], &[]);
        snapshot.gpus = Err(NoGpus::NoCard);
        assert_eq!(snapshot.lines(|_| vec![]), [&NoGpus::NoCard.to_string(), RAM]);
        assert_eq!(snapshot.as_json(false)["no_gpus"], NoGpus::NoCard.to_string());
    }
}
