//! How memory and time grow with the video, beside what the arithmetic says.

use super::plans::{CARD, Model, PhaseMemory, Video, gigabytes, video_of};
use crate::bench::table::Table;
use crate::exit::Failure;
use vidfit_engine::checkpoint::Variant;
use vidfit_engine::planner::Offload;

/// Frames, height and width of videos, each about twice as long, or twice as high and wide, as the
/// one before.
const SERIES: [(Variant, [[usize; 3]; 3]); 3] = [
    (Variant::FiveB, [[25, 480, 720], [49, 480, 720], [97, 480, 720]]),
    (Variant::FiveB, [[49, 240, 368], [49, 480, 720], [49, 960, 1440]]),
    (Variant::OneFive, [[41, 768, 1360], [81, 768, 1360], [161, 768, 1360]]),
];

/// What a video takes, and what it takes it for.
struct Point {
    video: String,
    tokens: f64,
    /// Multiplications and additions of a transformer block: the linear layers take 24·n·D² of
    /// them for n tokens of width D (four D × D matrices and a feed-forward layer of 8·D², two
    /// operations each), attention 4·n²·D.
    block_flops: f64,
    frames: f64,
    pixels: f64,
    denoise_bytes: u64,
    decode_bytes: u64,
    tiled_bytes: u64,
    denoise_seconds: f64,
    decode_seconds: f64,
}

/// Two tables: memory, and time.
pub fn tables() -> Result<[Table; 2], Failure> {
    let (mut memory, mut time) = (Vec::new(), Vec::new());
    for (variant, videos) in SERIES {
        let model = Model::new(variant)?;
        let mut before: Option<Point> = None;
        for [frames, height, width] in videos {
            let now = point(&model, [frames, height, width])?;
            let name = |n: usize| if n == 0 { variant.name().to_owned() } else { String::new() };
            let row = usize::from(before.is_some());
            let ratio = |of: &dyn Fn(&Point) -> f64| match &before {
                Some(before) => format!("{:.2}", of(&now) / of(before)),
                None => String::new(),
            };
            memory.push(vec![
                name(row),
                now.video.clone(),
                gigabytes(now.denoise_bytes),
                ratio(&|point| point.denoise_bytes as f64),
                ratio(&|point| point.tokens),
                gigabytes(now.decode_bytes),
                ratio(&|point| point.decode_bytes as f64),
                ratio(&|point| point.pixels),
                gigabytes(now.tiled_bytes),
                ratio(&|point| point.tiled_bytes as f64),
            ]);
            time.push(vec![
                name(row),
                now.video.clone(),
                format!("{:.0}", now.tokens),
                format!("{:.0} s", now.denoise_seconds),
                ratio(&|point| point.denoise_seconds),
                ratio(&|point| point.block_flops),
                ratio(&|point| point.tokens),
                ratio(&|point| point.tokens * point.tokens),
                format!("{:.1} s", now.decode_seconds),
                ratio(&|point| point.decode_seconds),
                ratio(&|point| point.pixels * point.frames),
            ]);
            before = Some(now);
        }
    }
    Ok([memory_table(memory), time_table(time)])
}

fn point(model: &Model, [frames, height, width]: [usize; 3]) -> Result<Point, Failure> {
    let video = Video { frames: Some(frames), size: Some((height, width)), is_tiled: false };
    let job = model.job(video)?;
    let config = &model.checkpoint.transformer.config;
    let tokens = (job.grid.tokens() + config.max_text_seq_length) as f64;
    let inner = config.inner_dim() as f64;
    let (least, tiled) = (model.least(video)?, model.least(Video { is_tiled: true, ..video })?);
    let whole = model.fastest(video, Offload::Model)?;
    let activations = |planned, phase| PhaseMemory::of(planned, phase).live_activation_bytes();
    let seconds = |phase: &str| {
        whole.plan.phases.iter().find(|work| work.name == phase).map_or(0.0, |work| work.seconds)
    };
    Ok(Point {
        video: video_of(&job),
        tokens,
        block_flops: 24.0 * tokens * inner * inner + 4.0 * tokens * tokens * inner,
        frames: job.frames as f64,
        pixels: (job.height * job.width) as f64,
        denoise_bytes: activations(&least, "denoise"),
        decode_bytes: activations(&least, "decode"),
        tiled_bytes: activations(&tiled, "decode"),
        denoise_seconds: seconds("denoise"),
        decode_seconds: seconds("decode"),
    })
}

fn memory_table(rows: Vec<Vec<String>>) -> Table {
    Table {
        title: "Growth of memory".into(),
        note: "What is alive when a phase of the least plan is fullest, without weights, in GB; × \
               is the ratio to the row before. Denoising grows with the tokens. Decoding as a \
               whole grows with the pixels of a frame, and not with the number of frames, of \
               which there are nine at a time at most; in tiles with neither, but for the edges \
               that are kept for blending, those of all frames."
            .into(),
        columns: vec![
            "model",
            "video",
            "denoise",
            "×",
            "tokens ×",
            "decode",
            "×",
            "pixels of one ×",
            "decode in tiles",
            "×",
        ],
        words: 2,
        rows,
    }
}

fn time_table(rows: Vec<Vec<String>>) -> Table {
    Table {
        title: "Growth of time".into(),
        note: format!(
            "Predicted seconds of 50 steps, and of decoding as a whole, on the {CARD} of the \
             catalogue, if its memory held each component whole. A block's arithmetic is \
             24·n·D² for its linear layers and 4·n²·D for attention (n tokens of width D), so its \
             ratio lies between that of the tokens and that of their square; attention is taken \
             to reach less of a card's rate than products do, so it weighs more in time than in \
             arithmetic. Decoding takes time by the pixels of all frames."
        ),
        columns: vec![
            "model",
            "video",
            "tokens",
            "denoise",
            "×",
            "arithmetic ×",
            "tokens ×",
            "tokens² ×",
            "decode",
            "×",
            "pixels of all ×",
        ],
        words: 2,
        rows,
    }
}
