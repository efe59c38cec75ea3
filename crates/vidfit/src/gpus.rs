//! `vidfit gpus`.

use crate::exit::Failure;
use crate::say::{answer, note};
use vidfit_engine::catalogue::{CatalogueError, Figure, Gpu, all, find, matching};

/// `vidfit gpus`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidfit gpus                    all cards that are known
  vidfit gpus \"RTX 3060\"         the cards of a name
  vidfit gpus \"RTX 3060 12GB\"    one card, in full")]
pub struct GpusArgs {
    /// A card, or a name that several share.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Name the documents behind the figures.
    #[arg(long)]
    pub sources: bool,
    /// As one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Lists the cards of the catalogue.
pub fn run(args: &GpusArgs) -> Result<(), Failure> {
    let gpus = match &args.name {
        None => all().iter().collect(),
        Some(name) => of_name(name)?,
    };
    if args.json {
        let gpus = serde_json::to_value(&gpus).map_err(Failure::other)?;
        return answer(&gpus.to_string());
    }
    match gpus[..] {
        [gpu] => answer(&in_full(gpu)),
        _ => answer(&table(&gpus, args.sources)),
    }
}

/// The card of a name, or the cards that share it, which is no error where cards are listed.
fn of_name(name: &str) -> Result<Vec<&'static Gpu>, Failure> {
    match find(name) {
        Ok(gpu) => Ok(vec![gpu]),
        Err(ambiguous @ CatalogueError::Ambiguous { .. }) => {
            note!("{ambiguous} where a command asks for a card");
            Ok(matching(name))
        }
        Err(unknown) => Err(Failure::input(unknown)),
    }
}

const NOTES: &str = "\
~  an assumption: overhead is what driver, context and modules hold outside of a job's arena; upload
   is 80 % of the bus's rate; makers and laptops choose their clocks, bandwidths and buses
tensor: peak of dense 16-bit products with 32-bit sums. Memory is in 2^30 bytes, rates in 10^9 a second";

fn table(gpus: &[&Gpu], sources: bool) -> String {
    let widest = gpus.iter().map(|gpu| gpu.name.len()).max().unwrap_or(0);
    let row = |cells: [&str; 9]| {
        let [name, memory, overhead, bandwidth, tensor, f32_rate, bus, upload, source] = cells;
        let line = format!(
            "{name:widest$}  {memory:>6}  {overhead:>8}  {bandwidth:>9}  {tensor:>14}  \
             {f32_rate:>13}  {bus:>14}  {upload:>9}  {source}"
        );
        line.trim_end().to_owned()
    };
    let head = ["card", "memory", "overhead", "bandwidth", "tensor", "f32", "bus", "upload"];
    let [a, b, c, d, e, f, g, h] = head;
    let mut lines = vec![row([a, b, c, d, e, f, g, h, if sources { "source" } else { "" }])];
    lines.extend(gpus.iter().map(|gpu| {
        let [memory, overhead, bandwidth, tensor, f32_rate, bus, upload] = figures(gpu);
        let source = if sources { &gpu.source[..] } else { "" };
        row([&gpu.name, &memory, &overhead, &bandwidth, &tensor, &f32_rate, &bus, &upload, source])
    }));
    lines.extend([String::new(), NOTES.to_owned()]);
    lines.join("\n")
}

/// What is known of a card, with a tilde at what is assumed.
fn figures(gpu: &Gpu) -> [String; 7] {
    let mark = |figures: &[Figure], text: String| {
        let assumed = figures.iter().any(|&figure| gpu.assumes(figure));
        if assumed { format!("~{text}") } else { text }
    };
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let per_second = |rate: f64| format!("{:.0} GB/s", rate / 1e9);
    let teraflops = |rate: f64| format!("{:.1} TFLOP/s", rate / 1e12);
    let tensor = &[Figure::Clock, Figure::Tensor];
    [
        format!("{:.0} GB", gigabytes(gpu.memory_bytes)),
        mark(&[Figure::Overhead], format!("{:.2} GB", gigabytes(gpu.overhead_bytes))),
        mark(&[Figure::Bandwidth], per_second(gpu.memory_bytes_per_second)),
        mark(tensor, teraflops(gpu.tensor_flops)),
        mark(&[Figure::Clock], teraflops(gpu.f32_flops)),
        mark(&[Figure::Bus], gpu.bus.to_string()),
        mark(&[Figure::Upload], per_second(gpu.upload_bytes_per_second)),
    ]
}

fn in_full(gpu: &Gpu) -> String {
    let [memory, overhead, bandwidth, tensor, f32_rate, bus, upload] = figures(gpu);
    let (major, minor) = gpu.compute_capability;
    let bf16 = if gpu.native_bf16 { "in hardware" } else { "not in hardware; use f16" };
    let architecture = format!("{}, compute capability {major}.{minor}", gpu.architecture);
    let rows = [
        ("architecture", architecture),
        ("memory", memory),
        ("overhead", overhead),
        ("bandwidth", bandwidth),
        ("tensor", tensor),
        ("f32", f32_rate),
        ("bf16", bf16.to_owned()),
        ("bus", bus),
        ("upload", upload),
        ("source", gpu.source.clone()),
    ];
    let mut lines = vec![gpu.name.clone()];
    lines.extend(rows.map(|(what, value)| format!("  {what:13} {value}")));
    lines.extend([String::new(), NOTES.to_owned()]);
    lines.join("\n")
}
