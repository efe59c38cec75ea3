//! How a job uses memory: what stays on the device, what is streamed, what is cut up, what waits in
//! host memory. No choice made here changes a bit of the result.

use crate::placement::{Parts, Streaming};
use serde::{Deserialize, Serialize};
use vidfit_cogvideox::transformer::TransformerSchedule;
use vidfit_cogvideox::vae::{DecodeSchedule, EncodeSchedule};
use vidfit_tensor::Profile;

/// More tokens than any job has.
const MOST_ROWS: usize = 1 << 24;

/// More slots than are of use.
const MOST_SLOTS: usize = 64;

/// The schedule of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// The text encoder's weights.
    pub text: Streaming,
    /// The weights that all steps share the results of: each is used once.
    pub conditioning: Streaming,
    /// The transformer's weights.
    pub denoise: Streaming,
    /// How the transformer's work is cut up.
    pub transformer: TransformerSchedule,
    /// The encoder's weights.
    pub encode: Streaming,
    /// What the encoder keeps in host memory.
    pub encoder: EncodeSchedule,
    /// The decoder's weights.
    pub decode: Streaming,
    /// What the decoder keeps in host memory.
    pub decoder: DecodeSchedule,
    /// Whether all components are brought at once, before the first, and stay to the end.
    pub keeps_components: bool,
    /// Weights that are on the device already, and stay: nothing is brought of them.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub warm: Parts,
}

impl Schedule {
    /// For a device that reads weights where they are: nothing is streamed that is used twice.
    pub fn in_place() -> Schedule {
        Schedule {
            text: Streaming::through(1),
            conditioning: Streaming::through(1),
            denoise: Streaming::RESIDENT,
            transformer: TransformerSchedule::default(),
            encode: Streaming::RESIDENT,
            encoder: EncodeSchedule::default(),
            decode: Streaming::RESIDENT,
            decoder: DecodeSchedule::default(),
            keeps_components: false,
            warm: Parts::default(),
        }
    }

    /// Each component whole while it works.
    pub fn resident() -> Schedule {
        Schedule {
            text: Streaming::RESIDENT,
            conditioning: Streaming::through(2),
            ..Schedule::in_place()
        }
    }

    /// Why a model with so many heads cannot be run so, if it cannot. Schedules from files may be
    /// anything.
    pub fn problem(&self, heads: usize) -> Option<String> {
        let TransformerSchedule { rows, head_groups } = self.transformer;
        if !(1..=MOST_ROWS).contains(&rows) {
            return Some(format!("{rows} tokens at a time"));
        }
        if head_groups == 0 || !heads.is_multiple_of(head_groups) {
            return Some(format!("{heads} heads in {head_groups} groups"));
        }
        if !self.warm.is_empty() {
            return Some("weights that are on the device before the job".into());
        }
        let phases = [self.text, self.encode, self.conditioning, self.denoise, self.decode];
        let slots = phases.iter().map(|phase| phase.slots).find(|n| !(1..=MOST_SLOTS).contains(n));
        slots.map(|slots| format!("{slots} slots"))
    }

    /// This schedule with what `least` does in the decode phase, with what it does before, and, for
    /// a job that `encodes`, with what it does in that phase.
    pub(crate) fn with_less(&self, least: &Schedule, encodes: bool) -> Vec<Schedule> {
        let decode_less = Schedule { decode: least.decode, decoder: least.decoder, ..*self };
        let before_less = Schedule { decode: self.decode, decoder: self.decoder, ..*least };
        let mut all = vec![decode_less, before_less];
        if encodes {
            all.push(Schedule { encode: least.encode, encoder: least.encoder, ..*self });
        }
        all
    }

    /// What a device can do without having searched: [`Schedule::in_place`] or
    /// [`Schedule::resident`].
    pub fn plain(profile: &Profile) -> Schedule {
        if profile.reads_host_memory { Schedule::in_place() } else { Schedule::resident() }
    }
}
