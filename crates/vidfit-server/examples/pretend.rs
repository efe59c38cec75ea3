//! A server that only pretends to make videos, for trying the API and the page:
//!
//! ```console
//! cargo run -p vidfit-server --example pretend -- /tmp/pretend 8080
//! ```
//!
//! A prompt with "real" in it takes some seconds; see `tests/server/pretend.rs` for other tricks. With
//! a token in `VIDFIT_TOKEN`, clients need it.

#![allow(clippy::unwrap_used, reason = "nobody but tests runs this")]

#[path = "../tests/server/pretend.rs"]
mod pretend;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use vidfit_server::{Config, log, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [work, queue_dir] if work == "work" => pretend::work(&PathBuf::from(queue_dir)),
        [queue_dir, port] => {
            log(std::env::var_os("VIDFIT_LOG_JSON").is_some());
            let mut config = Config::new(queue_dir);
            config.address.set_port(port.parse()?);
            config.token = std::env::var("VIDFIT_TOKEN").ok();
            let program = std::env::current_exe()?;
            let worker = Box::new(move |queue_dir: &std::path::Path| {
                let mut command = Command::new(&program);
                command.arg("work").arg(queue_dir);
                command
            });
            let ready = |address| println!("http://{address}/");
            serve(config, pretend::Pretend { worker }, &AtomicBool::new(false), ready)?;
            Ok(())
        }
        _ => Err("usage: pretend QUEUE_DIR PORT".into()),
    }
}
