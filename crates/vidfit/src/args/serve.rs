//! `vidfit serve`.

use super::machine::MachineArgs;
use super::work::WarmArgs;
use clap::ValueEnum;
use std::net::SocketAddr;
use std::path::PathBuf;
use vidfit_engine::bytes::ByteSize;
use vidfit_server::Task;

/// `vidfit serve`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidfit serve                                       for this machine alone: http://127.0.0.1:8080
  vidfit serve --address 0.0.0.0:8080                for others, who need the token that is printed
  vidfit serve --models zai-org/CogVideoX-5b,zai-org/CogVideoX-5b-I2V --warm 1
  vidfit serve --device cuda:0 --vram-budget 20GB --loras ~/loras --tasks t2v,i2v

Then, in a browser, the page; or, from anywhere:
  curl http://127.0.0.1:8080/v1/videos -H 'Content-Type: application/json' \\
      -d '{\"prompt\": \"a red ball moving right\"}'
  curl http://127.0.0.1:8080/v1/videos/ID                  how it stands
  curl http://127.0.0.1:8080/v1/videos/ID/content -o ball.mp4

The API is OpenAI's for videos, so its clients work, with the base URL
http://127.0.0.1:8080/v1. /docs describes all of it.

Videos are made one after another, by a process that ends when nothing is left to
do: an idle server holds no memory of the device, unless weights are to stay
(--warm). Every video that was accepted is made, whether the server, its process or
the machine ends meanwhile: start it again. Where the disk or the memory has no room
for it for a while, or its model is away, it waits, and says for what.

The token may also stand in VIDFIT_TOKEN, where no list of processes shows it. The
connection is not encrypted: beyond a network that you trust, put a proxy with TLS
before it, and name that with --allow-host. VIDFIT_LOG=debug logs more, requests as
well (VIDFIT_LOG=info,vidfit_server::access=debug: nothing else more). What nobody
says in a request is as in `vidfit config`.")]
pub struct ServeArgs {
    /// Where to listen. On other addresses than loopback's a token is needed.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080",
        help_heading = "Clients"
    )]
    pub address: SocketAddr,
    /// What clients must know, 16 characters at least [default: VIDFIT_TOKEN; else none on loopback,
    /// and elsewhere one that is made and printed].
    #[arg(long, value_name = "TOKEN", help_heading = "Clients")]
    pub token: Option<String>,
    /// A name that requests may be for besides localhost: that of a proxy before the server. May be
    /// given several times.
    #[arg(long = "allow-host", value_name = "NAME", help_heading = "Clients")]
    pub hosts: Vec<String>,
    /// A page elsewhere that may use the API, such as `https://example.com`. May be given several times.
    #[arg(long = "cors-origin", value_name = "ORIGIN", help_heading = "Clients")]
    pub cors_origins: Vec<String>,
    /// The most that a request may bring, images and videos included.
    #[arg(long, value_name = "SIZE", default_value = "512MB", help_heading = "Clients")]
    pub max_body: ByteSize,
    /// The most seconds that a request may take to come in: a large video over a slow line needs more.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        help_heading = "Clients"
    )]
    pub request_timeout: u64,
    /// The most videos that wait.
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Clients")]
    pub max_queue: usize,

    /// Where the queue and its videos are kept [default: vidfit/queue in the user's data folder].
    #[arg(long, value_name = "DIR", help_heading = "Videos")]
    pub queue_dir: Option<PathBuf>,
    /// The models that may be asked for: folders, and ids of the hub [default: the built-in demo and
    /// those that have been downloaded].
    #[arg(long, value_name = "DIR_OR_ID", value_delimiter = ',', help_heading = "Videos")]
    pub models: Vec<String>,
    /// The folder of the LoRAs that may be asked for, by the names of their files [default: none may].
    #[arg(long, value_name = "DIR", help_heading = "Videos")]
    pub loras: Option<PathBuf>,
    /// What videos may start from: text (t2v), an image (i2v), a video (v2v). Models that are for
    /// nothing of it are neither shown nor loaded.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "t2v,i2v,v2v",
        help_heading = "Videos"
    )]
    pub tasks: Vec<StartsFrom>,

    /// On what videos are made.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// What stays there between videos.
    #[command(flatten)]
    pub warm: WarmArgs,

    /// How to log, on standard error.
    #[arg(long, value_enum, default_value_t = LogStyle::Text, help_heading = "Reports")]
    pub log: LogStyle,
}

/// `--tasks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartsFrom {
    /// Text alone.
    T2v,
    /// An image.
    I2v,
    /// A video.
    V2v,
}

impl From<StartsFrom> for Task {
    fn from(choice: StartsFrom) -> Task {
        match choice {
            StartsFrom::T2v => Task::T2v,
            StartsFrom::I2v => Task::I2v,
            StartsFrom::V2v => Task::V2v,
        }
    }
}

/// `--log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogStyle {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
