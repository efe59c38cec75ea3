//! The NVIDIA cards of this machine, by the driver's own library (NVML), which is loaded at run
//! time: a machine without it is no error, only a machine without cards.

mod driver;
pub mod overhead;

use std::collections::BTreeMap;

/// The cards of this machine, as far as the driver tells.
pub struct Gpus {
    source: Box<dyn Source>,
}

/// There are no cards to speak of. Says why, and what could be done, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGpus {
    /// The driver's library is not there, or is broken.
    #[error(
        "no NVIDIA card can be seen: the driver's library ({library}) was not found, or \
             cannot be loaded"
    )]
    NoLibrary {
        /// The name of the library.
        library: &'static str,
    },
    /// The library is there, but does not work.
    #[error(
        "no NVIDIA card can be seen: {reason}. If there is one, nvidia-smi should show it; \
         (re)install the driver, or give this container access to it"
    )]
    Refused {
        /// What the library says.
        reason: String,
    },
    /// The driver works, and has no card.
    #[error("the NVIDIA driver is here, but it has no card")]
    NoCard,
}

/// What the cards do now.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Survey {
    /// The cards that answered.
    pub gpus: Vec<GpuStatus>,
    /// For each card that did not, a sentence.
    pub faults: Vec<String>,
}

/// What one card does now.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct GpuStatus {
    /// The driver's number of it, from 0.
    pub index: u32,
    /// The driver's name of it.
    pub name: String,
    /// Its memory.
    pub total_bytes: u64,
    /// What nobody holds.
    pub available_bytes: u64,
    /// What is held, by processes or the driver itself: `total_bytes - available_bytes`.
    pub used_bytes: u64,
    /// The share of the last moments in which it computed.
    pub utilisation_percent: Option<u32>,
    /// Its temperature.
    pub temperature_celsius: Option<u32>,
    /// The power that it draws.
    pub power_watts: Option<f64>,
    /// Who holds memory on it, most first. Other users' processes may be missing.
    pub processes: Vec<GpuProcess>,
}

/// A process that holds memory on a card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GpuProcess {
    /// Its id; inside a container the host's, which is another.
    pub pid: u32,
    /// Its program, where the driver may tell.
    pub name: Option<String>,
    /// What it holds. Windows does not say.
    pub bytes: Option<u64>,
}

/// Who is asked. The driver, or a test's machine.
trait Source {
    /// How many cards there are.
    fn count(&self) -> Result<u32, String>;
    /// What a card reports.
    fn report(&self, index: u32) -> Result<Report, String>;
}

/// What a source says of a card.
#[derive(Clone)]
struct Report {
    name: String,
    total_bytes: u64,
    free_bytes: u64,
    utilisation_percent: Option<u32>,
    temperature_celsius: Option<u32>,
    power_watts: Option<f64>,
    /// May name a process more than once: as one that draws and as one that computes.
    processes: Vec<GpuProcess>,
}

impl Gpus {
    /// Loads the driver's library.
    pub fn open() -> Result<Gpus, NoGpus> {
        Gpus::with(Box::new(driver::Driver::load()?))
    }

    fn with(source: Box<dyn Source>) -> Result<Gpus, NoGpus> {
        match source.count() {
            Ok(0) => Err(NoGpus::NoCard),
            Ok(_) => Ok(Gpus { source }),
            Err(reason) => Err(NoGpus::Refused { reason }),
        }
    }

    /// What the cards do now. A card that does not answer does not hide the others.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let count = self.source.count().unwrap_or_else(|reason| {
            survey.faults.push(format!("the NVIDIA driver does not answer: {reason}"));
            0
        });
        for index in 0..count {
            match self.source.report(index) {
                Ok(report) => survey.gpus.push(GpuStatus::new(index, report)),
                Err(reason) => {
                    survey.faults.push(format!("card {index} does not answer: {reason}"))
                }
            }
        }
        survey
    }
}

impl GpuStatus {
    fn new(index: u32, report: Report) -> GpuStatus {
        let available_bytes = report.free_bytes.min(report.total_bytes);
        GpuStatus {
            index,
            name: report.name,
            total_bytes: report.total_bytes,
            available_bytes,
            used_bytes: report.total_bytes - available_bytes,
            utilisation_percent: report.utilisation_percent,
            temperature_celsius: report.temperature_celsius,
            power_watts: report.power_watts,
            processes: each_once(report.processes),
        }
    }
}

/// The processes, each once, those that hold most first. Both lists of the driver give the whole
/// of what a process holds, so the larger figure counts and they are not added.
fn each_once(processes: Vec<GpuProcess>) -> Vec<GpuProcess> {
    let mut of_pid: BTreeMap<u32, GpuProcess> = BTreeMap::new();
    for process in processes {
        let known = of_pid.entry(process.pid).or_insert_with(|| process.clone());
        known.bytes = known.bytes.max(process.bytes);
        known.name = known.name.take().or(process.name).map(|name| printable(&name));
    }
    let mut processes: Vec<GpuProcess> = of_pid.into_values().collect();
    processes.sort_by_key(|process| std::cmp::Reverse(process.bytes));
    processes
}

/// A name without control characters: any user can name a program so that it speaks to the
/// terminal of who lists it.
fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose cards report this.
    struct Fake(Vec<Result<Report, String>>);

    impl Source for Fake {
        fn count(&self) -> Result<u32, String> {
            Ok(self.0.len() as u32)
        }

        fn report(&self, index: u32) -> Result<Report, String> {
            self.0[index as usize].clone()
        }
    }

    fn process(pid: u32, name: Option<&str>, bytes: Option<u64>) -> GpuProcess {
        GpuProcess { pid, name: name.map(str::to_owned), bytes }
    }

    fn report(free_bytes: u64, processes: Vec<GpuProcess>) -> Report {
        Report {
            name: "NVIDIA GeForce RTX 3060".into(),
            total_bytes: 1000,
            free_bytes,
            utilisation_percent: Some(7),
            temperature_celsius: None,
            power_watts: None,
            processes,
        }
    }

    fn survey(reports: Vec<Result<Report, String>>) -> Survey {
        Gpus::with(Box::new(Fake(reports))).unwrap_or_else(|error| panic!("{error}")).survey()
    }

    #[test]
    fn a_lost_card_does_not_hide_the_others() {
        let survey = survey(vec![Err("it fell off the bus".into()), Ok(report(400, vec![]))]);
        assert_eq!(survey.faults, ["card 0 does not answer: it fell off the bus"]);
        let [gpu] = &survey.gpus[..] else { panic!("{survey:?}") };
        assert_eq!((gpu.index, gpu.used_bytes, gpu.available_bytes), (1, 600, 400));
        assert_eq!(gpu.utilisation_percent, Some(7));
    }

    #[test]
    fn a_driver_that_reports_more_free_than_there_is_breaks_nothing() {
        let gpu = &survey(vec![Ok(report(1001, vec![]))]).gpus[0];
        assert_eq!((gpu.used_bytes, gpu.available_bytes), (0, 1000));
    }

    #[test]
    fn a_process_that_draws_and_computes_is_counted_once() {
        let processes = vec![
            process(1, None, None),
            process(7, None, Some(300)),
            process(3, Some("ga\u{1b}me"), Some(400)),
            process(7, Some("vidfit"), Some(300)),
        ];
        let gpu = &survey(vec![Ok(report(0, processes))]).gpus[0];
        let expected = [
            process(3, Some("ga\u{fffd}me"), Some(400)),
            process(7, Some("vidfit"), Some(300)),
            process(1, None, None),
        ];
        assert_eq!(gpu.processes, expected);
    }

    /// A driver whose answers end, as when it is replaced underneath.
    struct Dying(std::cell::Cell<bool>);

    impl Source for Dying {
        fn count(&self) -> Result<u32, String> {
            match self.0.replace(false) {
                true => Ok(1),
                false => Err("version mismatch".into()),
            }
        }

        fn report(&self, _: u32) -> Result<Report, String> {
            Ok(report(0, vec![]))
        }
    }

    #[test]
    fn a_driver_that_stops_answering_is_a_fault_and_one_without_cards_is_none() {
        let gpus = Gpus::with(Box::new(Dying(true.into()))).unwrap_or_else(|_| panic!());
        let survey = gpus.survey();
        assert_eq!(survey.gpus, []);
        assert_eq!(survey.faults, ["the NVIDIA driver does not answer: version mismatch"]);
        let refused = Gpus::with(Box::new(Dying(false.into()))).err().unwrap();
        assert!(refused.to_string().contains("version mismatch"), "{refused}");
        assert_eq!(Gpus::with(Box::new(Fake(vec![]))).err(), Some(NoGpus::NoCard));
    }

    #[test]
    fn opening_works_or_says_why_not() {
        match Gpus::open() {
            Ok(gpus) => {
                let survey = gpus.survey();
                assert!(!survey.gpus.is_empty() || !survey.faults.is_empty());
            }
            Err(reason) => assert!(reason.to_string().contains("NVIDIA"), "{reason}"),
        }
    }
}
