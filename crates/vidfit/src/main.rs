//! `vidfit`: generate CogVideoX videos on the machine you have.

mod args;
mod batch;
mod bench;
mod calibrate;
mod check;
mod config;
mod decide;
mod decode;
mod defaults;
mod demo;
mod device;
mod doctor;
mod exit;
mod frames;
mod generate;
mod gpus;
mod human;
mod input;
mod inspect;
mod interrupt;
mod model;
mod models;
mod monitor;
mod plan;
mod progress;
mod recommend;
mod requirements;
mod resume;
mod runs;
mod say;
mod serve;
mod snapshot;
mod status;
mod warm;
mod work;

use args::{Args, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = defaults::parse(std::env::args_os()).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(args: Args) -> Result<(), exit::Failure> {
    match args.command {
        Command::Generate(args) => generate::run(*args),
        Command::Resume(args) => resume::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Frames(args) => frames::run(&args),
        Command::Recommend(args) => recommend::run(&args),
        Command::Requirements(args) => requirements::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Models(args) => models::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Gpus(args) => gpus::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Presets(args) => config::presets(&args),
        Command::Work(args) => work::run(&args),
        Command::Bench(args) => bench::run(args),
    }
}
