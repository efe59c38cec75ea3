//! `vidfit status`.

use crate::exit::Failure;
use crate::say::answer;
use crate::snapshot::{Snapshot, processes};
use vidfit_engine::gpus::Gpus;

/// `vidfit status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    /// Say who holds memory on each card.
    #[arg(long)]
    pub processes: bool,
    /// As one JSON object, in bytes.
    #[arg(long)]
    pub json: bool,
}

/// Prints a line for each card and one for the RAM.
pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let snapshot = Snapshot::take(&Gpus::open());
    if args.json {
        return answer(&snapshot.as_json(args.processes).to_string());
    }
    let more = |gpu: &_| if args.processes { processes(gpu) } else { vec![] };
    answer(&snapshot.lines(more).join("\n"))
}
