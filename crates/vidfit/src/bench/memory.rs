//! `vidfit bench memory`: the tables of `docs/memory.md`.

mod growth;
mod plans;
mod reference;

use super::holders::Held;
use super::table::Table;
use crate::exit::Failure;
use crate::human::size;
use crate::say::answer;
use plans::{CARD, Model, PhaseMemory, Video, gigabytes, video_of};
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::host_memory::result_bytes;
use vidfit_engine::plan::PHASES;
use vidfit_engine::planner::report::staging_bytes;
use vidfit_engine::planner::{Offload, PlanReport, Planned};

/// `vidfit bench memory`.
#[derive(clap::Args)]
pub struct MemoryArgs {
    /// As Markdown, as docs/memory.md has it.
    #[arg(long)]
    markdown: bool,
}

/// The video of a model's own size, decoded in the reference's tiles.
const TILED: Video = Video { frames: None, size: None, is_tiled: true };
/// The same, decoded as a whole.
const WHOLE: Video = Video { is_tiled: false, ..TILED };

/// A published model with its least plan, in tiles.
struct Least {
    variant: Variant,
    model: Model,
    planned: Planned,
}

impl Least {
    fn new(variant: Variant) -> Result<Least, Failure> {
        let model = Model::new(variant)?;
        let planned = model.least(TILED)?;
        Ok(Least { variant, model, planned })
    }
}

/// Prints all tables, and fails if a limit does not hold.
pub fn run(args: &MemoryArgs) -> Result<(), Failure> {
    let all = Variant::ALL.into_iter().map(Least::new).collect::<Result<Vec<_>, _>>()?;
    let mut limits = Limits::default();
    let mut tables = vec![
        least_budgets(&all, &mut limits),
        activations(&all, &mut limits)?,
        strategies(&all)?,
        holders(&all),
    ];
    tables.extend(growth::tables()?);
    tables.push(host_memory(&all)?);
    let texts: Vec<String> = tables.iter().map(|table| table.text(args.markdown)).collect();
    answer(&texts.join("\n"))?;
    match limits.exceeded.is_empty() {
        true => Ok(()),
        false => Err(Failure::other(format!("over its limit: {}", limits.exceeded.join("; ")))),
    }
}

/// Limits that figures are held to.
#[derive(Default)]
struct Limits {
    exceeded: Vec<String>,
}

impl Limits {
    /// A cell that says the limit, in GB, for `bytes` of `what`.
    fn cell(&mut self, what: &str, bytes: u64, limit: Option<f64>) -> String {
        let Some(limit) = limit else { return String::new() };
        if bytes as f64 <= limit * f64::from(1 << 30) {
            return format!("≤ {limit:.2}");
        }
        self.exceeded.push(format!("{what} takes {} GB, not {limit}", gigabytes(bytes)));
        format!("exceeds {limit:.2}")
    }
}

fn least_budgets(all: &[Least], limits: &mut Limits) -> Table {
    let row = |Least { variant, model, planned }: &Least| {
        let plan = &planned.plan;
        let limit = match variant {
            Variant::TwoB | Variant::FiveB => Some(1.0),
            Variant::OneFive => Some(1.75),
            Variant::FiveBI2v | Variant::OneFiveI2v => None,
        };
        let theirs = reference::step_bytes(*variant).max(reference::decode_bytes(*variant, true));
        let phase = |name| gigabytes(PhaseMemory::of(planned, name).arena_bytes);
        let phase_or_none = |name| match planned.job.phases().contains(&name) {
            true => phase(name),
            false => String::new(),
        };
        vec![
            variant.name().to_owned(),
            video_of(&planned.job),
            phase("text"),
            phase_or_none("encode"),
            phase("denoise"),
            phase("decode"),
            gigabytes(plan.layout.peak_bytes),
            gigabytes(plan.scratch_bytes),
            gigabytes(plan.device_bytes()),
            limits.cell(variant.name(), plan.device_bytes(), limit),
            gigabytes(model.target.overhead_bytes),
            gigabytes(theirs),
        ]
    };
    Table {
        title: "The least possible budgets".into(),
        note: format!(
            "The whole pipeline from the prompt to the frames, 16 bits, guidance on, decoded in \
             the reference's tiles; for the I2V models with the encoding of the image. The \
             arena is all tensors, weights included; scratch is what operations need besides; \
             both together are reserved, once. Outside of that is what the catalogue puts down to \
             driver, context and kernels of an {CARD}. The reference is the larger of its step \
             and its decoding in tiles, without any weights. GB."
        ),
        columns: vec![
            "model",
            "video",
            "text",
            "encode",
            "denoise",
            "decode",
            "arena",
            "scratch",
            "reserved",
            "limit",
            "outside",
            "reference",
        ],
        words: 2,
        rows: all.iter().map(row).collect(),
    }
}

fn activations(all: &[Least], limits: &mut Limits) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    let mut add = |what: String, video: String, memory: &PhaseMemory, limit: String, theirs| {
        let ours = memory.activation_bytes();
        rows.push(vec![
            what,
            video,
            gigabytes(memory.arena_bytes),
            gigabytes(memory.weight_bytes),
            gigabytes(ours),
            limit,
            gigabytes(theirs),
            format!("{:.2}", ours as f64 / theirs as f64),
        ]);
    };
    for Least { variant, planned, .. } in all {
        let memory = PhaseMemory::of(planned, "denoise");
        let what = format!("a step of {variant}");
        let limit = (*variant == Variant::FiveB).then_some(0.6);
        let limit = limits.cell(&what, memory.activation_bytes(), limit);
        add(what, video_of(&planned.job), &memory, limit, reference::step_bytes(*variant));
    }
    for least in all.iter().filter(|least| !least.variant.needs_image()) {
        for (video, how) in [(TILED, "in tiles"), (WHOLE, "as a whole")] {
            let planned = match video.is_tiled {
                true => least.planned.clone(),
                false => least.model.least(video)?,
            };
            let memory = PhaseMemory::of(&planned, "decode");
            let what = format!("decoding {how}, {}", least.variant);
            let is_limited = !video.is_tiled && !least.variant.is_one_five();
            let reserved = memory.arena_bytes + planned.plan.scratch_bytes;
            let limit = limits.cell(&what, reserved, is_limited.then_some(3.2));
            let theirs = reference::decode_bytes(least.variant, video.is_tiled);
            add(what, video_of(&planned.job), &memory, limit, theirs);
        }
    }
    Ok(Table {
        title: "Beside the reference".into(),
        note: "The denoise and decode phases of the least plans, with the weights that they hold \
               at their fullest taken away, beside the reference's own peaks of live tensors, \
               which have no weights in them (diffusers 0.42.1, measured). The limit of a step \
               is for its activations, that of decoding for the arena with scratch. GB."
            .into(),
        columns: vec![
            "what",
            "video",
            "arena",
            "weights",
            "without",
            "limit",
            "reference",
            "ratio",
        ],
        words: 2,
        rows,
    })
}

fn strategies(all: &[Least]) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    for Least { variant, model, planned } in all {
        let ways = [
            ("everything stays", model.fastest(WHOLE, Offload::None)?),
            ("each component whole", model.fastest(WHOLE, Offload::Model)?),
            ("each component whole, in tiles", model.fastest(TILED, Offload::Model)?),
            ("streamed, as a whole", model.least(WHOLE)?),
            ("streamed, in tiles", planned.clone()),
        ];
        for (n, (name, planned)) in ways.iter().enumerate() {
            let mut row = vec![if n == 0 { variant.name().to_owned() } else { String::new() }];
            row.push((*name).to_owned());
            row.extend(PHASES.map(|phase| match planned.job.phases().contains(&phase) {
                true => gigabytes(PhaseMemory::of(planned, phase).live_bytes()),
                false => String::new(),
            }));
            row.push(gigabytes(planned.plan.device_bytes()));
            rows.push(row);
        }
    }
    Ok(Table {
        title: "Strategies".into(),
        note: "What is alive when each phase is fullest, and what is reserved, at the published \
               sizes. The first three are the fastest of their kind, with large chunks and all \
               caches on the card; streamed is the least. Between them lies whatever a budget \
               allows. GB."
            .into(),
        columns: vec![
            "model",
            "weights; decoding",
            "text",
            "encode",
            "denoise",
            "decode",
            "reserved",
        ],
        words: 2,
        rows,
    })
}

fn holders(all: &[Least]) -> Table {
    let mut rows = Vec::new();
    let chosen = all.iter().filter(|least| !least.variant.needs_image());
    for Least { variant, planned, .. } in chosen {
        for (n, &phase) in planned.job.phases().iter().enumerate() {
            let memory = PhaseMemory::of(planned, phase);
            let told = |held: &Held| match held.count {
                1 => format!("{} {}", held.what, size(held.bytes)),
                count => format!("{count} × {} {}", held.what, size(held.bytes)),
            };
            let largest: Vec<String> = memory.held.iter().take(5).map(told).collect();
            rows.push(vec![
                if n == 0 { variant.name().to_owned() } else { String::new() },
                phase.to_owned(),
                largest.join(", "),
                size(memory.live_bytes()),
                size(memory.arena_bytes),
            ]);
        }
    }
    Table {
        title: "What is held at the peaks".into(),
        note: "The five largest kinds of tensors that are alive when a phase of the least plan is \
               fullest, all of them together, and the arena up to its highest byte in use: what \
               is between the two are gaps."
            .into(),
        columns: vec!["model", "phase", "largest", "all", "arena"],
        words: 3,
        rows,
    }
}

fn host_memory(all: &[Least]) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    for Least { variant, model, planned } in all {
        let whole = model.fastest(TILED, Offload::Model)?;
        let ways = [("each component whole", &whole), ("streamed", planned)];
        for (n, (name, planned)) in ways.into_iter().enumerate() {
            let report = PlanReport::of(&model.checkpoint, planned);
            rows.push(vec![
                if n == 0 { variant.name().to_owned() } else { String::new() },
                name.to_owned(),
                gigabytes(staging_bytes(&model.checkpoint)),
                gigabytes(planned.plan.layout.trace.host_peak_bytes),
                gigabytes(result_bytes(&model.checkpoint, &planned.job, false)),
                gigabytes(report.ram_peak_bytes),
                gigabytes(report.mapped_bytes),
            ]);
        }
    }
    Ok(Table {
        title: "Host memory".into(),
        note: "What a job holds in RAM, decoding in tiles: staging for copies; what waits for the \
               card (modulations of all steps, weights that had to be converted, paged caches); \
               frames and what the run could go on from. Weights are read from the memory map: \
               page cache is the largest component's file, which the system keeps if it has \
               room and reads again if not. GB."
            .into(),
        columns: vec!["model", "weights", "staging", "waiting", "results", "held", "page cache"],
        words: 2,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document has these rows, to the digit.
    #[test]
    fn the_document_says_what_the_plans_say() {
        let document = include_str!("../../../../docs/memory.md");
        let all: Vec<Least> =
            Variant::ALL.into_iter().map(|variant| Least::new(variant).unwrap()).collect();
        let mut limits = Limits::default();
        let table = least_budgets(&all, &mut limits).text(true);
        assert!(
            document.contains(&table),
            "docs/memory.md is out of date (vidfit bench memory --markdown): {table}"
        );
        assert!(limits.exceeded.is_empty(), "{:?}", limits.exceeded);
    }

    #[test]
    fn what_exceeds_its_limit_is_named() {
        let mut limits = Limits::default();
        assert_eq!(limits.cell("a", 1 << 30, Some(1.0)), "≤ 1.00");
        assert_eq!(limits.cell("b", 1 << 40, None), "");
        assert!(limits.exceeded.is_empty());
        assert_eq!(limits.cell("c", (1 << 30) + 1, Some(1.0)), "exceeds 1.00");
        assert_eq!(limits.exceeded, ["c takes 1.00 GB, not 1"]);
    }
}
