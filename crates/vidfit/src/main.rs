//! `vidfit`: generate CogVideoX videos on the machine you have.

mod args;
mod bench;
mod calibrate;
mod exit;
mod generate;
mod gpus;
mod human;
mod inspect;
mod interrupt;
mod models;
mod monitor;
mod progress;
mod say;
mod snapshot;
mod status;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Generate(args) => generate::run(*args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Models(args) => models::run(args),
        Command::Status(args) => status::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Gpus(args) => gpus::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
