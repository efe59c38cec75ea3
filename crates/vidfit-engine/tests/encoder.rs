//! The VAE encoder by itself: equal to the reference's, whole and in tiles, in every type; the same
//! bits however it uses memory; and the memory that a dry run says.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::bed::{compute_on, host};
use support::saboteur::{Mistake, Saboteur};
use support::{card, distance, fixtures, tensor};
use vidfit_cogvideox::noise::Generator;
use vidfit_cogvideox::vae::{self, EncodeSchedule, Rectangle, Tiling, VaeConfig};
use vidfit_cpu::CpuDevice;
use vidfit_engine::checkpoint::Component;
use vidfit_engine::placement::{Placed, Streaming, Use};
use vidfit_engine::safetensors::SafetensorsFile;
use vidfit_tensor::{Context, DType, Device, Error, Tensor};

const TOLERANCE: f64 = 1e-5;
const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

#[derive(Deserialize)]
struct Index {
    encodes: BTreeMap<String, EncodeCase>,
    samples: BTreeMap<String, SampleCase>,
}

/// Whether to encode in tiles, and of which height and width if not the reference's.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Tiles {
    Whether(bool),
    Of(usize, usize),
}

#[derive(Deserialize)]
struct EncodeCase {
    checkpoint: String,
    frames: usize,
    height: usize,
    width: usize,
    tiling: Tiles,
    distance_bf16: f64,
    distance_f16: f64,
}

#[derive(Deserialize)]
struct SampleCase {
    checkpoint: String,
    frames: usize,
    height: usize,
    width: usize,
    factor: String,
    seed: u64,
    distance_bf16: f64,
    distance_f16: f64,
}

fn index() -> Index {
    let path = fixtures().join("encodes/index.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn expected(name: &str) -> Vec<f32> {
    let file = SafetensorsFile::open(fixtures().join("encodes/cases.safetensors")).unwrap();
    tensor(&file, name).1
}

/// How far a result may be from the reference's in f32.
fn most(dtype: DType, own_bf16: f64, own_f16: f64) -> f64 {
    match dtype {
        DType::F32 => TOLERANCE,
        DType::BF16 => 1.5 * own_bf16,
        DType::F16 => 1.5 * own_f16,
    }
}

/// The video of the fixtures: see their README.
fn pixels(part: Rectangle, values: &mut [f32]) -> Result<(), Error> {
    let Rectangle { frame: t, top, left, height, width } = part;
    assert_eq!(values.len(), height * width * 3);
    for (n, value) in values.iter_mut().enumerate() {
        let (y, x, c) = (top + n / 3 / width, left + n / 3 % width, n % 3);
        let k = 11 * t + 31 * y + 57 * x + 101 * c + 3 * x * y + 5 * t * x + 7 * t * y;
        *value = (k % 251) as f32 / 128.0 - 125.0 / 128.0;
    }
    Ok(())
}

/// Something to encode, and how.
struct Encode<'c> {
    vae: &'c Component<VaeConfig>,
    dtype: DType,
    /// Frames, height, width.
    video: (usize, usize, usize),
    tiling: Option<Tiling>,
    schedule: EncodeSchedule,
    streaming: Streaming,
}

impl Encode<'_> {
    fn moments(&self, cx: &Context<'_>) -> Result<Tensor, Error> {
        let &Encode { vae, dtype, video, tiling, schedule, streaming } = self;
        let config = &vae.config;
        let passes = vae::encoder_passes(config, tiling, video.0, (video.1, video.2));
        let usage = Use { blocks: config.encoder_blocks(), passes };
        let weights = Placed::new(*cx, &vae.weights, dtype, usage, streaming)?;
        vae::encode(cx, &weights, config, dtype, video, &mut pixels, tiling, schedule)
    }

    /// What `device` makes of it, as the reference has it: `[32, F, h, w]`; and the arena's bytes.
    fn run<D: Device + 'static>(&self, device: &Arc<D>) -> (Vec<f32>, u64) {
        compute_on(device, |cx| {
            let moments = self.moments(cx)?;
            Ok(channels_first(&host(cx, &moments)?, moments.dims()))
        })
    }
}

/// `[F, C, h, w]` to `[C, F, h, w]`.
fn channels_first(values: &[f32], dims: &[usize]) -> Vec<f32> {
    let plane = dims[2] * dims[3];
    let line = |c: usize, f: usize| &values[(f * dims[1] + c) * plane..][..plane];
    (0..dims[1]).flat_map(|c| (0..dims[0]).flat_map(move |f| line(c, f))).copied().collect()
}

fn open(checkpoint: &str) -> Component<VaeConfig> {
    Component::open(&fixtures().join("checkpoints").join(checkpoint).join("vae")).unwrap()
}

impl EncodeCase {
    fn tiling(&self, config: &VaeConfig) -> Option<Tiling> {
        match self.tiling {
            Tiles::Whether(false) => None,
            Tiles::Whether(true) => Some(Tiling::reference(config)),
            Tiles::Of(height, width) => Some(Tiling { height, width }),
        }
    }

    fn encode<'c>(&self, vae: &'c Component<VaeConfig>, dtype: DType) -> Encode<'c> {
        Encode {
            vae,
            dtype,
            video: (self.frames, self.height, self.width),
            tiling: self.tiling(&vae.config),
            schedule: EncodeSchedule::default(),
            streaming: Streaming::RESIDENT,
        }
    }
}

fn cpu(threads: usize) -> Arc<CpuDevice> {
    Arc::new(CpuDevice::new(threads).unwrap())
}

#[test]
fn the_encoder_equals_the_reference_whole_and_in_tiles() {
    let mut misses = Vec::new();
    let cases = index().encodes;
    assert!(cases.len() >= 9);
    for (name, case) in cases {
        let vae = open(&case.checkpoint);
        let tiling = case.tiling(&vae.config);
        assert_eq!(tiling.and_then(|tiling| tiling.encoding_problem(&vae.config)), None);
        let theirs = expected(&format!("{name}.moments"));
        print!("{name:16}");
        for dtype in DTYPES {
            let ours = distance(&case.encode(&vae, dtype).run(&cpu(2)).0, &theirs);
            let most = most(dtype, case.distance_bf16, case.distance_f16);
            print!("  {dtype} {ours:7.1e} of {most:7.1e}");
            if ours > most {
                misses.push(format!("{name} {dtype}: {ours:.2e} > {most:.2e}"));
            }
        }
        println!();
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

#[test]
fn tiles_and_chunks_are_asked_for_once_and_as_little_as_possible() {
    let (vae, case) = (open("1.5"), &index().encodes["tiled-17-frames"]);
    let tiling = case.tiling(&vae.config);
    let size = (case.height, case.width);
    // 2x2 tiles of 48x40 pixels in steps of 40x32, and two chunks.
    assert_eq!(vae::encoder_passes(&vae.config, tiling, 17, size), 8);
    let encoded = vae::encoded_pixels(&vae.config, tiling, size);
    assert_eq!(encoded, (48 + 16) * (40 + 16));
    let (asked, _) = compute_on(&cpu(1), |cx| {
        let usage = Use { blocks: vae.config.encoder_blocks(), passes: 8 };
        let weights =
            Placed::new(*cx, &vae.weights, DType::F32, usage, Streaming::through(2)).unwrap();
        let mut asked = Vec::new();
        let mut give = |part: Rectangle, values: &mut [f32]| {
            asked.push(part);
            pixels(part, values)
        };
        let (config, video) = (&vae.config, (17, case.height, case.width));
        let schedule = EncodeSchedule::default();
        vae::encode(cx, &weights, config, DType::F32, video, &mut give, tiling, schedule)?;
        Ok(asked)
    });
    let corners = [(0, 0, 48, 40), (0, 32, 48, 16), (40, 0, 16, 40), (40, 32, 16, 16)];
    let expected = corners.into_iter().flat_map(|(top, left, height, width)| {
        (0..17).map(move |frame| Rectangle { frame, top, left, height, width })
    });
    assert_eq!(asked, expected.collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_ends_the_encoding() {
    let vae = open("5b");
    let result = std::panic::catch_unwind(|| {
        compute_on(&cpu(1), |cx| {
            let usage = Use { blocks: vae.config.encoder_blocks(), passes: 1 };
            let weights = Placed::new(*cx, &vae.weights, DType::F32, usage, Streaming::RESIDENT)?;
            let mut give = |part: Rectangle, _: &mut [f32]| match part.frame {
                0..3 => Ok(()),
                _ => Err(Error::model("the video ends here")),
            };
            let (config, schedule) = (&vae.config, EncodeSchedule::default());
            let video = (9, 16, 16);
            let result =
                vae::encode(cx, &weights, config, DType::F32, video, &mut give, None, schedule);
            match result {
                Err(error) if !cx.arena.is_recording() => panic!("{error}"),
                _ => Ok(()),
            }
        })
    });
    let message = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("the video ends here"), "{message}");
}

// --- the same bits, and the planned memory ---

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn memory_and_threads_change_no_bit() {
    let cases = index().encodes;
    for (name, dtype) in [
        ("17-frames", DType::F32),
        ("22-frames", DType::BF16),
        ("tiled", DType::F16),
        ("tiled-17-frames", DType::BF16),
    ] {
        let case = &cases[name];
        let vae = open(&case.checkpoint);
        let caches = vae.config.encoder_caches();
        let plain = case.encode(&vae, dtype);
        let (expected, _) = plain.run(&cpu(1));
        let mut peaks = Vec::new();
        for (paged_caches, slots, threads) in
            [(0, None, 3), (caches / 2, Some(1), 2), (caches, None, 1), (caches, Some(2), 3)]
        {
            let streaming = slots.map_or(Streaming::RESIDENT, Streaming::through);
            let schedule = EncodeSchedule { paged_caches };
            let with = Encode { schedule, streaming, ..case.encode(&vae, dtype) };
            let (ours, cpu_bytes) = with.run(&cpu(threads));
            assert_eq!(bits(&ours), bits(&expected), "{name}, {paged_caches} paged, {slots:?}");

            let card = card::card(1 << 26, threads, 7 + paged_caches as u64);
            let (ours, card_bytes) = with.run(&card);
            assert_eq!(bits(&ours), bits(&expected), "{name}, {paged_caches} paged, {slots:?}");
            assert_eq!(card.violations(), [""; 0], "{name}");
            let counters = card.counters();
            assert_eq!(counters.reservations, [card_bytes], "{name}");
            let highest = counters.highest_byte.next_multiple_of(card.profile().alignment);
            assert_eq!((highest, counters.held_bytes), (card_bytes, 0), "{name}");
            peaks.push((paged_caches, slots, cpu_bytes));
        }
        println!("{name} {dtype}: {peaks:?}");
        let [all_kept, .., all_paged, _] = peaks[..] else { unreachable!() };
        // The largest caches are those of the full resolution.
        if case.frames > 9 {
            assert!(all_paged.2 < all_kept.2, "{name}: {peaks:?}");
        }
    }
}

/// What the device is given to read and to write reaches to the planned peak, and not beyond.
#[test]
fn encoding_uses_what_was_planned_to_the_byte() {
    for (name, case) in index().encodes {
        let vae = open(&case.checkpoint);
        let witness = Saboteur::new(None);
        let (_, planned) = case.encode(&vae, DType::BF16).run(&witness);
        assert_eq!(witness.reserved(), [planned], "{name}");
        let highest = witness.highest_byte().next_multiple_of(witness.profile().alignment);
        assert_eq!(highest, planned, "{name}");
    }
}

// --- draws ---

/// Normal numbers as the reference draws them in `dtype`.
fn draw(seed: u64, dtype: DType, count: usize) -> Vec<f32> {
    let mut generator = Generator::seed(seed);
    match dtype {
        DType::F32 => {
            let mut values = vec![0.0; count];
            generator.fill_normal_f32(&mut values);
            values
        }
        DType::BF16 => {
            let mut values = vec![half::bf16::ZERO; count];
            generator.fill_normal_bf16(&mut values);
            values.into_iter().map(f32::from).collect()
        }
        DType::F16 => {
            let mut values = vec![half::f16::ZERO; count];
            generator.fill_normal_f16(&mut values);
            values.into_iter().map(f32::from).collect()
        }
    }
}

impl SampleCase {
    fn factor(&self, config: &VaeConfig) -> f64 {
        match self.factor.as_str() {
            "video" => config.video_factor(),
            "image" => config.image_factor(),
            other => panic!("a factor called {other}"),
        }
    }

    fn encode<'c>(&self, vae: &'c Component<VaeConfig>, dtype: DType) -> Encode<'c> {
        let video = (self.frames, self.height, self.width);
        let (schedule, streaming) = (EncodeSchedule::default(), Streaming::RESIDENT);
        Encode { vae, dtype, video, tiling: None, schedule, streaming }
    }

    /// The latents that are drawn from moments.
    fn sample(
        &self,
        cx: &Context<'_>,
        config: &VaeConfig,
        moments: &Tensor,
    ) -> Result<Vec<f32>, Error> {
        let [frames, channels, height, width] = *moments.dims() else { panic!("{moments:?}") };
        let shape = [frames, channels / 2, height, width];
        let elements = shape.iter().product();
        let mut latents = cx.upload("noise", moments.dtype(), shape, || {
            let drawn = draw(self.seed, moments.dtype(), elements);
            vae::frames_first(&drawn, channels / 2, height * width)
        })?;
        let noise = latents.clone();
        vae::sample(cx, moments, &noise, self.factor(config), &mut latents);
        host(cx, &latents)
    }

    fn run<D: Device + 'static>(
        &self,
        vae: &Component<VaeConfig>,
        dtype: DType,
        device: &Arc<D>,
    ) -> Vec<f32> {
        let encode = self.encode(vae, dtype);
        compute_on(device, |cx| self.sample(cx, &vae.config, &encode.moments(cx)?)).0
    }
}

#[test]
fn drawn_latents_equal_the_reference_s() {
    let mut misses = Vec::new();
    for (name, case) in index().samples {
        let vae = open(&case.checkpoint);
        let theirs = expected(&format!("{name}.latents.f32"));
        for dtype in DTYPES {
            let ours = distance(&case.run(&vae, dtype, &cpu(2)), &theirs);
            let most = most(dtype, case.distance_bf16, case.distance_f16);
            println!("{name:10} {dtype} {ours:7.1e} of {most:7.1e}");
            if ours > most {
                misses.push(format!("{name} {dtype}: {ours:.2e} > {most:.2e}"));
            }
        }
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

/// From the reference's own moments, the latents are the reference's to the bit in the types where
/// every operation is rounded.
#[test]
fn draws_round_where_the_reference_does() {
    for (name, case) in index().samples {
        let vae = open(&case.checkpoint);
        for dtype in DTYPES {
            let label = dtype.to_string();
            let theirs = expected(&format!("{name}.latents.{label}"));
            let moments = expected(&format!("{name}.moments.{label}"));
            let (ours, _) = compute_on(&cpu(2), |cx| {
                let plane = case.height * case.width / 64;
                let shape = [moments.len() / 32 / plane, 32, case.height / 8, case.width / 8];
                let values = || vae::frames_first(&moments, 32, plane);
                let moments = cx.upload("moments", dtype, shape, values)?;
                case.sample(cx, &vae.config, &moments)
            });
            let differ = ours.iter().zip(&theirs).filter(|(a, b)| a.to_bits() != b.to_bits());
            println!("{name} {dtype}: {} of {} differ", differ.count(), ours.len());
            match dtype {
                DType::F32 => assert!(distance(&ours, &theirs) < 1e-7, "{name}"),
                _ => assert_eq!(ours, theirs, "{name} {dtype}"),
            }
        }
    }
}

// --- sharpness ---

#[test]
fn mistakes_of_the_encoder_show() {
    let cases = index().encodes;
    let (whole, halved) = (["9-frames", "17-frames"], ["10-frames", "17-frames"]);
    let tiled = ["tiled", "tiled-17-frames", "tiled-picture"];
    let mistakes: [(Mistake, &[&str]); 8] = [
        (Mistake::FirstFramePooled, &whole),
        (Mistake::SecondFramesDropped, &halved),
        (Mistake::PaddedTopLeft, &["picture", "22-frames", "tiled"]),
        // A seam of one line is the neighbour's, whatever the order.
        (Mistake::BlendOrder, &tiled[2..]),
        (Mistake::BlendSkipped, &tiled),
        (Mistake::GroupNormSiluDropped, &["picture"]),
        (Mistake::StatisticsOfFirstFrame, &whole),
        (Mistake::ConvCacheDropped, &["17-frames", "22-frames"]),
    ];
    let mut blunt = Vec::new();
    for (mistake, names) in mistakes {
        for name in names {
            let case = &cases[*name];
            let vae = open(&case.checkpoint);
            let encode = case.encode(&vae, DType::F32);
            let theirs = expected(&format!("{name}.moments"));
            let honest = distance(&encode.run(&Saboteur::new(None)).0, &theirs);
            assert!(honest <= TOLERANCE, "{name}: {honest:.1e}");
            let missed = distance(&encode.run(&Saboteur::new(Some(mistake))).0, &theirs);
            let row = format!("{mistake:?} {name}: {:.0} times the tolerance", missed / TOLERANCE);
            println!("{row}");
            if missed < 10.0 * TOLERANCE {
                blunt.push(row);
            }
        }
    }
    let samples = index().samples;
    for mistake in [Mistake::PosteriorMean, Mistake::PosteriorUnhalved] {
        for (name, case) in &samples {
            let vae = open(&case.checkpoint);
            let theirs = expected(&format!("{name}.latents.f32"));
            let ours = case.run(&vae, DType::F32, &Saboteur::new(Some(mistake)));
            if distance(&ours, &theirs) < 10.0 * TOLERANCE {
                blunt.push(format!("{mistake:?} {name}"));
            }
        }
    }
    // The other factor is another picture.
    let (case, vae) = (&samples["image-1.5"], open("1.5"));
    let video =
        SampleCase { factor: "video".into(), ..index().samples.remove("image-1.5").unwrap() };
    let theirs = expected("image-1.5.latents.f32");
    let ours = video.run(&vae, DType::F32, &cpu(1));
    assert!(distance(&ours, &theirs) > 0.1 && case.factor(&vae.config) > 1.0);
    assert!(blunt.is_empty(), "these mistakes hardly show: {blunt:#?}");
}
