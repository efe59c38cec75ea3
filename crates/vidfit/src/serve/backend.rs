//! What the server asks of the rest of the program.

use super::devices::Devices;
use super::orders::Orders;
use super::token;
use super::words::{self, REPORT};
use crate::args::MachineArgs;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use vidfit_engine::generate::RunReport;
use vidfit_engine::presets::{Preset, canonical};
use vidfit_engine::runs::{Runs, Standing};
use vidfit_engine::settings::Settings;
use vidfit_server::{
    Backend, Gpu, Model, Next, Order, Reference, Refusal, Report, Settled, Task, Work,
};

/// The program, as the server sees it.
pub struct Program {
    /// What orders are held against.
    pub orders: Orders,
    /// The program's own file.
    pub program: PathBuf,
    /// Pipelines whose weights the worker keeps.
    pub warm_pipelines: usize,
}

impl Program {
    fn devices(&self) -> &Devices {
        &self.orders.devices
    }
}

impl Backend for Program {
    fn models(&self) -> Vec<Model> {
        self.orders.offers.all().into_iter().map(|offer| offer.about).collect()
    }

    fn gpus(&self) -> Vec<Gpu> {
        self.devices().all()
    }

    fn presets(&self) -> Vec<vidfit_server::Preset> {
        let presets = Settings::load().map(|settings| settings.presets).unwrap_or_default();
        let told = |(name, preset): (String, Preset)| vidfit_server::Preset {
            name: canonical(&name),
            description: preset.description,
            num_inference_steps: preset.steps.and_then(|steps| u32::try_from(steps).ok()),
            guidance_scale: preset.guidance,
        };
        presets.into_iter().map(told).collect()
    }

    fn settle(&self, order: &Order, reference: Option<&Reference>) -> Result<Settled, Refusal> {
        self.orders.settle(order, reference)
    }

    fn plan(&self, order: &Order, task: Task) -> Result<Value, Refusal> {
        self.orders.plan(order, task)
    }

    fn next(&self, work: &Work<'_>) -> Result<Next, Refusal> {
        // It gets its name once it is whole, and nobody else writes there.
        if work.video().is_file() {
            return Ok(Next::Done);
        }
        // It could be made when it was accepted: what is missing by now may come back.
        let offer = match self.orders.offers.find_now(&work.settled.model, work.settled.task) {
            Ok(offer) => offer,
            Err(refusal) => return Ok(Next::Wait(refusal.message)),
        };
        let runs = Runs::in_folder(work.runs());
        let begun = match runs.list() {
            Ok(begun) => begun,
            Err(error) => return Ok(Next::Wait(error.to_string())),
        };
        match begun.last().map(|run| &run.standing) {
            Some(Standing::Damaged(_)) => {
                // What cannot go on begins anew; the worker says so if this does not help.
                let _ = std::fs::remove_dir_all(runs.folder());
            }
            Some(_) => return Ok(Next::Words(words::resume(work))),
            None => {}
        }
        Ok(match words::generate(work, &offer.spelled, &self.orders.loras) {
            Ok(words) => Next::Words(words),
            Err(refusal) => Next::Wait(refusal.message),
        })
    }

    fn report(&self, work: &Work<'_>) -> Option<Report> {
        let text = std::fs::read_to_string(work.folder.join(REPORT)).ok()?;
        let report: RunReport = serde_json::from_str(&text).ok()?;
        let phases = report.phases.into_iter();
        let warm_bytes = report.plan.as_ref().map_or(0, |plan| plan.warm_bytes);
        Some(Report {
            planned_peak_bytes: report.plan.map(|plan| plan.peak_bytes + warm_bytes),
            measured_peak_bytes: report.measured_peak_bytes.map(|bytes| bytes + warm_bytes),
            seconds: phases
                .filter_map(|phase| Some((phase.name, phase.measured_seconds?)))
                .collect(),
        })
    }

    fn worker(&self, queue_dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("work").arg("--queue-dir").arg(queue_dir);
        command.args(machine_words(self.devices().machine()));
        command.arg(format!("--warm={}", self.warm_pipelines));
        // Of no use to it.
        command.env_remove(token::VARIABLE);
        command
    }
}

/// The machine as the command line would say it.
fn machine_words(machine: &MachineArgs) -> Vec<String> {
    use clap::ValueEnum;
    let MachineArgs { dtype, device, threads, vram_budget, buffer, ram, offload } = machine;
    let dtype = dtype.to_possible_value().map(|value| value.get_name().to_owned());
    let options = [
        ("dtype", dtype),
        ("device", Some(device.to_string())),
        ("threads", Some(threads.to_string())),
        ("vram-budget", vram_budget.map(|size| size.to_string())),
        ("buffer", buffer.map(|size| size.to_string())),
        ("ram", ram.map(|size| size.to_string())),
        ("offload", Some(offload.to_string())),
    ];
    let said = options.into_iter().filter_map(|(option, value)| Some((option, value?)));
    said.map(|(option, value)| format!("--{option}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use std::ffi::OsString;

    #[test]
    fn the_worker_has_the_servers_machine() {
        let words = [
            "vidfit",
            "serve",
            "--device=sim:8GB",
            "--vram-budget=7.5GB",
            "--buffer=123456789",
            "--ram=3GB",
            "--offload=40%",
            "--dtype=bf16",
            "--threads=2",
        ];
        let serve = crate::defaults::try_parse(words.map(OsString::from)).unwrap();
        let args::Command::Serve(serve) = serve.command else { panic!("another command") };
        let work = ["vidfit", "work", "--queue-dir=q"].map(str::to_owned).into_iter();
        let work = work.chain(machine_words(&serve.machine)).map(OsString::from);
        let work = crate::defaults::try_parse(work).unwrap();
        let args::Command::Work(work) = work.command else { panic!("another command") };
        let words = machine_words(&work.machine);
        assert_eq!(words, machine_words(&serve.machine));
        assert!(words.contains(&"--buffer=123456789".to_owned()), "{words:?}");
    }
}
