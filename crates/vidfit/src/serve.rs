//! `vidfit serve`: a web page and an HTTP API. The server itself is `vidfit-server`; here is what it
//! asks of the rest of the program.

mod backend;
mod devices;
mod loras;
mod offers;
mod orders;
mod token;
mod words;

use crate::args::{LogStyle, ServeArgs};
use crate::exit::Failure;
use crate::interrupt;
use crate::say::{line, log_notes};
use crate::warm;
use backend::Program;
use devices::Devices;
use loras::Loras;
use offers::Offers;
use orders::Orders;
use std::net::SocketAddr;
use std::time::Duration;
use token::Token;
use vidfit_engine::folders::Folders;
use vidfit_engine::pipelines::WarmSettings;
use vidfit_server::{Config, ServeError, serve};

/// Serves until it is told to stop.
///
/// # Errors
/// Bad input in the arguments or the settings; if the address or the queue cannot be had.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    vidfit_server::log(args.log == LogStyle::Json);
    if args.log == LogStyle::Json {
        log_notes();
    }
    let given = args.token.clone().or_else(|| std::env::var(token::VARIABLE).ok());
    let token = token::of(given.as_deref(), args.address.ip())?;
    let warm = args.warm.instead_of(warm::settings()?);
    let config = config(args, token.as_ref(), warm)?;
    let program = program(args, &config, warm)?;
    let stop = interrupt::watch()?;
    serve(config, program, &stop, |address| announce(address, token.as_ref())).map_err(failure)
}

fn config(args: &ServeArgs, token: Option<&Token>, warm: WarmSettings) -> Result<Config, Failure> {
    let queue_dir = args.queue_dir.clone().unwrap_or_else(|| Folders::from_env().queue);
    // The worker may be started from anywhere.
    let queue_dir = std::path::absolute(queue_dir).map_err(Failure::input)?;
    if queue_dir.to_str().is_none() {
        // The worker is told of places in there in JSON.
        return Err(Failure::input("the name of the queue's folder is no Unicode; take another"));
    }
    Ok(Config {
        address: args.address,
        token: token.map(|token| token.text.clone()),
        allowed_hosts: args.hosts.clone(),
        cors_origins: args.cors_origins.clone(),
        queue_limit: args.max_queue,
        max_body_bytes: args.max_body.0,
        request_timeout: Duration::from_secs(args.request_timeout),
        idle_unload: kept_for(warm),
        ..Config::new(queue_dir)
    })
}

/// How long a worker stays that has nothing to do.
fn kept_for(warm: WarmSettings) -> Duration {
    match warm.pipelines {
        0 => Duration::ZERO,
        _ => warm.idle_unload.map_or(FOREVER, |time| time.min(FOREVER)),
    }
}

/// A hundred years, which clocks can still count.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What the server asks, once it is certain that something can be made.
fn program(args: &ServeArgs, config: &Config, warm: WarmSettings) -> Result<Program, Failure> {
    if !cfg!(feature = "h264") {
        return Err(Failure::other(
            "this vidfit was built without H.264, and a server's videos are MP4s",
        ));
    }
    let devices = Devices::new(args.machine.clone(), &config.queue_dir);
    devices.target()?;
    if let Some(folder) = args.loras.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(Failure::input(format!(
            "--loras {}: there is no such folder",
            folder.display()
        )));
    }
    let tasks = args.tasks.iter().map(|task| (*task).into()).collect();
    let offers = Offers::new(args.models.clone(), tasks);
    if offers.all().is_empty() {
        return Err(Failure::input(
            "none of the models can make any of this: see `vidfit models list`, --models and --tasks",
        ));
    }
    let loras = args.loras.as_ref().map(std::path::absolute).transpose().map_err(Failure::input)?;
    Ok(Program {
        orders: Orders::new(offers, devices, Loras(loras)),
        program: std::env::current_exe().map_err(Failure::other)?,
        warm_pipelines: warm.pipelines,
    })
}

/// Says where it is, and what others have to know.
fn announce(address: SocketAddr, token: Option<&Token>) {
    line!("vidfit listens on http://{address}");
    if let Some(Token { text, is_new: true }) = token {
        line!("token: {text}");
    }
}

fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::Listen { address, source } => {
            Failure::input(format!("cannot listen on {address}: {source}; take another --address"))
        }
        ServeError::NeedsToken { .. } | ServeError::ShortToken | ServeError::Folder { .. } => {
            Failure::input(error)
        }
        error => Failure::other(error),
    }
}
