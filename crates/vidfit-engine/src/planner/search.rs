//! The search: for each phase the fastest choice that fits, then the whole, held to the budget.

use super::decide::Rejected;
use super::target::Offload;
use super::trial::{Trial, Trials};
use super::ways::{TooLarge, without_tiles};
use crate::bytes::both_in_words;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::placement::{self, Adapted, Part, Rung, Streaming};
use crate::plan::{PHASES, Plan};
use crate::schedule::Schedule;
use crate::state::RunState;
use std::cell::RefCell;
use std::collections::BTreeMap;
use vidfit_cogvideox::transformer::TransformerSchedule;
use vidfit_cogvideox::vae::{DecodeSchedule, EncodeSchedule};
use vidfit_tensor::Error;

/// Tokens that go through a layer at a time. Many use a device well; few need little memory.
const ROWS: [usize; 2] = [2048, 256];

/// More groups of heads than this save next to nothing.
const MOST_HEAD_GROUPS: usize = 16;

/// Corrections of a phase's budget for what only the whole plan shows.
const MOST_CORRECTIONS: usize = 6;

/// The search for one job.
pub(super) struct Search<'a> {
    pub trials: Trials<'a>,
    pub offload: Offload,
    pub memo: &'a Memo,
    /// Whether host memory is to be spared: nothing is kept converted, and no cache paged.
    pub spares_ram: bool,
    /// Where the run goes on from.
    pub state: Option<&'a RunState>,
}

/// What a search comes to.
#[allow(clippy::large_enum_variant)] // There is one at a time.
pub(super) enum Found {
    /// The fastest schedule, and its plan.
    Fits(Schedule, Plan),
    /// Nothing fits; for encoding or decoding that do not, smaller tiles may help.
    Nothing(TooLarge),
}

/// The least device memory of phases, in bytes.
#[derive(Clone, Copy)]
pub(super) struct LeastOfPhases {
    /// Of the fuller of text and denoise.
    pub besides: u64,
    /// Of encode; 0 where there is nothing to encode.
    pub encode: u64,
    /// Of decode.
    pub decode: u64,
}

/// What has been found within a budget for the phases that the decoder's tiles have no part in; for
/// encoding, in tiles of a height and width.
#[derive(Default)]
pub(super) struct Memo {
    text: Remembered<u64, Streaming>,
    encode: Remembered<(u64, Option<(usize, usize)>), Coding>,
    denoise: Remembered<u64, Denoising>,
}

/// The choice that was found for each key, or that there is none.
type Remembered<K, T> = RefCell<BTreeMap<K, Option<T>>>;

/// The choices for a phase of the VAE: its weights, and how many caches are paged.
type Coding = (Streaming, usize);

/// A budget for each of [`PHASES`].
type Budgets = [u64; PHASES.len()];

/// The choices for the denoise phase.
#[derive(Clone, Copy)]
struct Denoising {
    conditioning: Streaming,
    denoise: Streaming,
    transformer: TransformerSchedule,
}

impl Denoising {
    fn within(self, schedule: &Schedule) -> Schedule {
        let Denoising { conditioning, denoise, transformer } = self;
        Schedule { conditioning, denoise, transformer, ..*schedule }
    }
}

impl Search<'_> {
    fn checkpoint(&self) -> &Checkpoint {
        self.trials.checkpoint
    }

    /// Whether weights are used where they lie, so that there is nothing to place.
    fn in_place(&self) -> bool {
        self.trials.target.profile.reads_host_memory
    }

    /// The whole job with this schedule.
    pub fn whole(&self, schedule: &Schedule) -> Result<Plan, EngineError> {
        let Trials { checkpoint, job, target } = self.trials;
        Plan::timed(checkpoint, job, schedule, self.state, &target.profile, &target.rates)
    }

    /// What a plan takes of the budget.
    pub fn taken(&self, plan: &Plan) -> u64 {
        self.trials.target.reserved_bytes(&plan.layout, plan.scratch_bytes)
    }

    /// The fastest schedule within `budget`. Each phase is searched by itself; what the whole takes
    /// beyond that is then taken from the budgets of the phases that go beyond it.
    pub fn within(&self, budget: u64) -> Result<Found, EngineError> {
        let mut budgets: Budgets = [budget; PHASES.len()];
        let mut last = None;
        for correction in 0..MOST_CORRECTIONS {
            let Some(schedule) = self.schedule(budgets)? else { break };
            let plan = self.whole(&schedule)?;
            if self.taken(&plan) <= budget {
                return Ok(Found::Fits(schedule, plan));
            }
            last = Some(schedule);
            if schedule.keeps_components {
                break;
            }
            for (name, allowed) in PHASES.iter().zip(&mut budgets) {
                let excess = self.taken_in(&plan, name).saturating_sub(budget);
                *allowed = allowed.saturating_sub(excess << correction);
            }
        }
        // Phases by themselves are laid out a little better or worse than in the whole, and where
        // there is hardly room, corrections go too far. Whether one phase's least, everything
        // streamed, or the least of all fits, only the whole can tell.
        let least = self.least()?;
        let mut rest: Vec<Schedule> =
            last.iter().flat_map(|last| last.with_less(&least, self.encodes())).collect();
        if self.offload == Offload::Auto {
            let memo = &Memo::default();
            let streamed = Search { offload: Offload::Sequential, memo, ..*self };
            rest.extend(streamed.schedule([budget; PHASES.len()])?);
        }
        let mut best: Option<(Schedule, Plan)> = None;
        for schedule in rest {
            let plan = self.whole(&schedule)?;
            let is_faster = best.as_ref().is_none_or(|(_, best)| plan.seconds() < best.seconds());
            if self.taken(&plan) <= budget && is_faster {
                best = Some((schedule, plan));
            }
        }
        if let Some((schedule, plan)) = best {
            return Ok(Found::Fits(schedule, plan));
        }
        let plan = self.whole(&least)?;
        if self.taken(&plan) <= budget {
            return Ok(Found::Fits(least, plan));
        }
        let is_too_large = |phase| self.taken_in(&plan, phase) > budget;
        let (encode, decode) = (is_too_large("encode"), is_too_large("decode"));
        Ok(Found::Nothing(TooLarge { encode, decode }))
    }

    /// What a phase of a plan takes of the budget; nothing if the plan has no such phase.
    fn taken_in(&self, plan: &Plan, phase: &str) -> u64 {
        let besides = self.taken(plan) - plan.layout.peak_bytes;
        let found = plan.layout.phases.iter().find(|found| found.name == phase);
        found.map_or(0, |phase| phase.peak_bytes + besides)
    }

    /// Whether there is anything to encode. What goes on from a state has done that.
    fn encodes(&self) -> bool {
        let has_begun = self.state.is_some_and(RunState::has_begun);
        self.trials.job.given_frames > 0 && !has_begun
    }

    fn schedule(
        &self,
        [text, encode, denoise, decode]: Budgets,
    ) -> Result<Option<Schedule>, Error> {
        let mut schedule = match self.in_place() {
            true => Schedule::in_place(),
            false => Schedule::resident(),
        };
        schedule.warm = self.trials.target.warm;
        schedule.keeps_components = self.offload == Offload::None && !self.in_place();
        if !self.in_place() {
            let found = remembered(&self.memo.text, text, || self.text(&schedule, text))?;
            let Some(streaming) = found else { return Ok(None) };
            schedule.text = streaming;
        }
        if self.encodes() {
            let tiles = self.trials.job.encode_tiling.map(|tiles| (tiles.height, tiles.width));
            let search = || self.encode(&schedule, encode);
            let Some(coding) = remembered(&self.memo.encode, (encode, tiles), search)? else {
                return Ok(None);
            };
            schedule = encoding(&schedule, coding);
        }
        let search = || self.denoise(&schedule, denoise);
        let Some(denoising) = remembered(&self.memo.denoise, denoise, search)? else {
            return Ok(None);
        };
        let schedule = denoising.within(&schedule);
        let coding = self.decode(&schedule, decode)?;
        Ok(coding.map(|coding| decoding(&schedule, coding)))
    }

    /// What each allowance of resident weights of these blocks comes to. Where they are there
    /// already, there is none to be made.
    fn rungs(&self, part: Part, blocks: &[String]) -> Result<Vec<Rung>, Error> {
        if self.trials.target.warm.has(part) {
            return Ok(vec![Rung { resident_bytes: 0, streamed_bytes: 0, slot_bytes: 0 }]);
        }
        let job = self.trials.job;
        placement::ladder(Adapted::of(part, self.checkpoint(), job), job.dtype, blocks)
    }

    /// What each allowance of resident weights comes to, of those that the strategy allows.
    fn ladder(&self, ladder: Vec<Rung>) -> Vec<Rung> {
        let total = ladder.last().map_or(0, |rung| rung.resident_bytes);
        let keep = |allowance: u64| {
            let last = ladder.iter().rev().find(|rung| rung.resident_bytes <= allowance);
            last.copied().into_iter().collect()
        };
        match self.offload {
            Offload::Auto => ladder,
            Offload::None | Offload::Model => keep(total),
            Offload::Sequential => keep(0),
            Offload::Percent(share) => keep(total / 100 * u64::from(share) + total % 100),
        }
    }

    /// Slots to be tried, the fastest first.
    fn slots(&self) -> &'static [usize] {
        match self.offload {
            Offload::Sequential => &[1],
            _ => &[2, 3, 1],
        }
    }

    fn text(&self, schedule: &Schedule, budget: u64) -> Result<Option<Streaming>, Error> {
        let blocks = self.checkpoint().text_encoder.config.encoder_blocks();
        let ladder = self.rungs(Part::TextEncoder, &blocks)?;
        // Each layer is used once: that it could stay is worth nothing.
        let ladder = match self.offload {
            Offload::Auto => ladder[..1].to_vec(),
            _ => self.ladder(ladder),
        };
        let trial = |text| self.trials.text(&Schedule { text, ..*schedule });
        let best = self.fastest(&ladder, false, budget, &trial)?;
        Ok(best.map(|(streaming, _)| streaming))
    }

    fn denoise(&self, schedule: &Schedule, budget: u64) -> Result<Option<Denoising>, Error> {
        let blocks = self.checkpoint().transformer.config.step_blocks();
        let ladder = self.ladder(self.rungs(Part::Transformer, &blocks)?);
        let keeps_converted = self.may_keep(ladder.first().map_or(0, |rung| rung.streamed_bytes));
        let mut best: Option<(Denoising, Trial)> = None;
        for rows in ROWS {
            for head_groups in self.head_groups() {
                let transformer = TransformerSchedule { rows, head_groups };
                let Schedule { mut conditioning, denoise, .. } = *schedule;
                if self.offload == Offload::Sequential {
                    conditioning.slots = 1;
                }
                let mut with = Denoising { conditioning, denoise, transformer };
                let trial =
                    |denoise| self.trials.denoise(&Denoising { denoise, ..with }.within(schedule));
                if self.in_place() {
                    let trial = trial(with.denoise)?;
                    if trial.device_bytes <= budget {
                        keep_faster(&mut best, with, trial);
                        break;
                    }
                } else if let Some((denoise, trial)) =
                    self.fastest(&ladder, keeps_converted, budget, &trial)?
                {
                    with.denoise = denoise;
                    keep_faster(&mut best, with, trial);
                    let is_all = ladder
                        .last()
                        .is_some_and(|all| denoise.resident_bytes >= all.resident_bytes);
                    if is_all && self.offload != Offload::Sequential {
                        break;
                    }
                }
            }
            // Few rows are for those whom nothing else helps.
            if best.is_some() {
                break;
            }
        }
        Ok(best.map(|(choice, _)| choice))
    }

    fn encode(&self, schedule: &Schedule, budget: u64) -> Result<Option<Coding>, Error> {
        let config = &self.checkpoint().vae.config;
        let trial = |coding| self.trials.encode(&encoding(schedule, coding));
        self.code(Part::Encoder, &config.encoder_blocks(), config.encoder_caches(), budget, &trial)
    }

    fn decode(&self, schedule: &Schedule, budget: u64) -> Result<Option<Coding>, Error> {
        let config = &self.checkpoint().vae.config;
        let trial = |coding| self.trials.decode(&decoding(schedule, coding));
        self.code(Part::Decoder, &config.decoder_blocks(), config.decoder_caches(), budget, &trial)
    }

    /// The fastest way to use these blocks of the VAE, which have so many caches.
    fn code(
        &self,
        part: Part,
        blocks: &[String],
        caches: usize,
        budget: u64,
        trial: &dyn Fn(Coding) -> Result<Trial, Error>,
    ) -> Result<Option<Coding>, Error> {
        let ladder = self.ladder(self.rungs(part, blocks)?);
        let mut pages: Vec<usize> = (0..=4).map(|quarters| caches * quarters / 4).collect();
        if self.trials.target.shares_ram || self.spares_ram {
            // What is paged out would lie in the same memory.
            pages.truncate(1);
        } else if self.offload == Offload::Sequential {
            pages = vec![caches];
        }
        let mut best: Option<(Coding, Trial)> = None;
        for paged_caches in pages {
            if self.in_place() {
                let coding = (Streaming::RESIDENT, paged_caches);
                let trial = trial(coding)?;
                if trial.device_bytes <= budget {
                    keep_faster(&mut best, coding, trial);
                }
                continue;
            }
            let trial = |streaming| trial((streaming, paged_caches));
            if let Some((streaming, trial)) =
                self.fastest(&ladder, !self.spares_ram, budget, &trial)?
            {
                keep_faster(&mut best, (streaming, paged_caches), trial);
                if ladder.last().is_some_and(|all| streaming.resident_bytes >= all.resident_bytes) {
                    break;
                }
            }
        }
        Ok(best.map(|(coding, _)| coding))
    }

    /// The fastest way to place weights within `budget`: for each number of slots, as many weights
    /// stay as there is room for.
    fn fastest(
        &self,
        ladder: &[Rung],
        keeps_converted: bool,
        budget: u64,
        trial: &dyn Fn(Streaming) -> Result<Trial, Error>,
    ) -> Result<Option<(Streaming, Trial)>, Error> {
        let Some(lowest) = ladder.first() else { return Ok(None) };
        let streaming = |rung: &Rung, slots| Streaming {
            resident_bytes: rung.resident_bytes,
            slots,
            keeps_converted,
        };
        let taken = |rung: &Rung, slots| rung.resident_bytes + rung.slot_bytes * slots as u64;
        let base = trial(streaming(lowest, 1))?;
        let besides = base.device_bytes.saturating_sub(taken(lowest, 1));
        let mut best: Option<(Streaming, Trial)> = None;
        for &slots in self.slots() {
            let mut allowed = budget;
            for _ in 0..MOST_CORRECTIONS {
                let fits = |rung: &&Rung| besides + taken(rung, slots) <= allowed;
                let Some(rung) = ladder.iter().rev().find(fits) else { break };
                let choice = streaming(rung, slots);
                let tried = trial(choice)?;
                if tried.device_bytes <= budget {
                    keep_faster(&mut best, choice, tried);
                    break;
                }
                allowed = allowed.saturating_sub(tried.device_bytes - budget);
            }
            let is_all = |(choice, _): &(Streaming, Trial)| {
                ladder.last().is_some_and(|all| choice.resident_bytes >= all.resident_bytes)
            };
            // One slot is for those for whom two are too many; a third helps only who streams.
            if best.as_ref().is_some_and(|best| slots != 2 || is_all(best)) {
                break;
            }
        }
        Ok(best)
    }

    /// What the phases take at least, each by itself.
    pub fn least_of_phases(&self) -> Result<LeastOfPhases, Error> {
        let schedule = self.least()?;
        let text = if self.in_place() { 0 } else { self.trials.text(&schedule)?.device_bytes };
        let denoise = self.trials.denoise(&schedule)?.device_bytes;
        let decode = self.trials.decode(&schedule)?.device_bytes;
        let encode = match self.encodes() {
            true => self.trials.encode(&schedule)?.device_bytes,
            false => 0,
        };
        Ok(LeastOfPhases { besides: text.max(denoise), encode, decode })
    }

    /// The schedule that takes the least memory that the strategy allows.
    pub fn least(&self) -> Result<Schedule, Error> {
        let groups = self.head_groups().last().copied().unwrap_or(1);
        let transformer = TransformerSchedule { rows: ROWS[1], head_groups: groups };
        if self.in_place() {
            let warm = self.trials.target.warm;
            return Ok(Schedule { transformer, warm, ..Schedule::in_place() });
        }
        let Checkpoint { text_encoder, transformer: denoiser, vae, .. } = self.checkpoint();
        let keeps_caches = self.trials.target.shares_ram || self.spares_ram;
        let paged = |caches| if keeps_caches { 0 } else { caches };
        let streaming = |part, blocks: Vec<String>| -> Result<Streaming, Error> {
            let ladder = self.ladder(self.rungs(part, &blocks)?);
            let resident_bytes = ladder.first().map_or(0, |rung| rung.resident_bytes);
            Ok(Streaming { resident_bytes, slots: 1, keeps_converted: false })
        };
        let of_vae = |part, blocks| -> Result<Streaming, Error> {
            Ok(Streaming { keeps_converted: !self.spares_ram, ..streaming(part, blocks)? })
        };
        Ok(Schedule {
            text: streaming(Part::TextEncoder, text_encoder.config.encoder_blocks())?,
            conditioning: Streaming::through(1),
            denoise: streaming(Part::Transformer, denoiser.config.step_blocks())?,
            transformer,
            encode: of_vae(Part::Encoder, vae.config.encoder_blocks())?,
            encoder: EncodeSchedule { paged_caches: paged(vae.config.encoder_caches()) },
            decode: of_vae(Part::Decoder, vae.config.decoder_blocks())?,
            decoder: DecodeSchedule { paged_caches: paged(vae.config.decoder_caches()) },
            keeps_components: self.offload == Offload::None,
            warm: self.trials.target.warm,
        })
    }

    /// Numbers of groups of heads to be tried, from one.
    fn head_groups(&self) -> Vec<usize> {
        let heads = self.checkpoint().transformer.config.num_attention_heads;
        let even = |groups: &usize| heads.is_multiple_of(*groups);
        let all: Vec<usize> = (1..=MOST_HEAD_GROUPS.min(heads)).filter(even).collect();
        match self.offload {
            Offload::Sequential => all.last().copied().into_iter().collect(),
            _ => {
                let most = all.last().copied();
                let worth_trying =
                    |groups: &usize| [1, 2, 3, 4, 8].contains(groups) || Some(*groups) == most;
                all.into_iter().filter(worth_trying).collect()
            }
        }
    }

    /// Whether RAM has room to keep so many converted bytes.
    fn may_keep(&self, bytes: u64) -> bool {
        !self.spares_ram && self.trials.target.ram_bytes.is_some_and(|ram| bytes <= ram / 2)
    }

    /// What encoding or decoding as a whole would take.
    pub fn why_not_whole(&self, verb: &'static str, budget: u64) -> Result<Rejected, EngineError> {
        let least = self.least()?;
        let trial = match verb {
            "encode" => self.trials.encode(&least)?,
            _ => self.trials.decode(&least)?,
        };
        let (takes, may) = both_in_words(trial.device_bytes, budget);
        Ok(Rejected {
            what: without_tiles(verb),
            peak_bytes: trial.device_bytes,
            seconds: trial.seconds,
            why: format!("takes at least {takes}, and {may} may be used"),
        })
    }
}

/// The schedule, with this way to encode.
fn encoding(schedule: &Schedule, (encode, paged_caches): Coding) -> Schedule {
    Schedule { encode, encoder: EncodeSchedule { paged_caches }, ..*schedule }
}

/// The schedule, with this way to decode.
fn decoding(schedule: &Schedule, (decode, paged_caches): Coding) -> Schedule {
    Schedule { decode, decoder: DecodeSchedule { paged_caches }, ..*schedule }
}

/// What has been found for `key`, or is found now.
fn remembered<K: Ord + Copy, T: Copy>(
    memo: &Remembered<K, T>,
    key: K,
    search: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if let Some(found) = memo.borrow().get(&key) {
        return Ok(*found);
    }
    let found = search()?;
    memo.borrow_mut().insert(key, found);
    Ok(found)
}

/// Keeps `choice` if it is faster than the best so far.
fn keep_faster<T>(best: &mut Option<(T, Trial)>, choice: T, trial: Trial) {
    if best.as_ref().is_none_or(|(_, best)| trial.seconds < best.seconds) {
        *best = Some((choice, trial));
    }
}
