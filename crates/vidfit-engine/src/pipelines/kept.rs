//! The weights that stay on the device between jobs, and the pipelines that used them.

use crate::checkpoint::{Checkpoint, ComponentIdentity};
use crate::placement::{Part, WarmWeights};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vidfit_tensor::DType;

/// What tells weights on the device apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    component: ComponentIdentity,
    part: Part,
    /// The type of the runs that they are converted for.
    dtype: DType,
}

impl Key {
    pub fn of(checkpoint: &Checkpoint, part: Part, dtype: DType) -> Key {
        let component = match part {
            Part::TextEncoder => checkpoint.text_encoder.identity(),
            Part::Transformer => checkpoint.transformer.identity(),
            Part::Encoder | Part::Decoder => checkpoint.vae.identity(),
        };
        Key { component: component.clone(), part, dtype }
    }
}

/// Weights, each once, and their users.
#[derive(Default)]
pub(super) struct Kept {
    weights: HashMap<Key, Arc<WarmWeights>>,
    /// The least recent first.
    users: Vec<User>,
}

/// A pipeline, and what its last job found or left on the device.
struct User {
    pipeline: u64,
    keys: Vec<Key>,
    used: Instant,
    /// Whether a job of it runs now.
    is_busy: bool,
}

impl Kept {
    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.weights.values().map(|weights| weights.bytes()).sum()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<WarmWeights>> {
        self.weights.get(key).cloned()
    }

    /// Which of the other pipelines' weights can stay beside `own` of `pipeline`, the most recent
    /// first, and what they take: of as many pipelines as `most`, in as many bytes as `room`.
    pub fn staying(&self, pipeline: u64, own: &[Key], most: usize, room: u64) -> (Vec<u64>, u64) {
        let mut counted: HashSet<&Key> = own.iter().collect();
        let (mut pipelines, mut bytes) = (Vec::new(), 0);
        let others = self.users.iter().rev().filter(|user| user.pipeline != pipeline);
        for user in others.take(most) {
            let new: Vec<&Key> = user.keys.iter().filter(|key| !counted.contains(key)).collect();
            let weights = new.iter().filter_map(|key| self.weights.get(key));
            let more: u64 = weights.map(|weights| weights.bytes()).sum();
            // Whoever was used before him does not outlast him.
            if bytes + more > room {
                break;
            }
            bytes += more;
            counted.extend(new);
            pipelines.push(user.pipeline);
        }
        (pipelines, bytes)
    }

    /// Lets everything go but `own` of `pipeline`, as far as it is there, and what `staying` use.
    pub fn make_room(&mut self, pipeline: u64, own: &[Key], staying: &[u64]) {
        for user in self.users.iter_mut().filter(|user| user.pipeline == pipeline) {
            user.keys = own.to_vec();
        }
        self.users.retain(|user| user.pipeline == pipeline || staying.contains(&user.pipeline));
        let users: HashSet<&Key> = self.users.iter().flat_map(|user| &user.keys).collect();
        self.weights.retain(|key, _| own.contains(key) || users.contains(key));
    }

    /// A job of `pipeline` begins, or ends if it is no longer `is_busy`, with these weights.
    pub fn used(
        &mut self,
        pipeline: u64,
        weights: &[(Key, Arc<WarmWeights>)],
        now: Instant,
        is_busy: bool,
    ) {
        self.users.retain(|user| user.pipeline != pipeline);
        self.weights.extend(weights.iter().cloned());
        if !weights.is_empty() {
            let keys = weights.iter().map(|(key, _)| key.clone()).collect();
            self.users.push(User { pipeline, keys, used: now, is_busy });
        }
        self.drop_unused();
    }

    /// Lets go of what nobody but `pipeline` uses.
    pub fn forget(&mut self, pipeline: u64) {
        self.users.retain(|user| user.pipeline != pipeline);
        self.drop_unused();
    }

    pub fn forget_all(&mut self) {
        *self = Kept::default();
    }

    /// Lets go of what has not been used for this long.
    pub fn forget_idle(&mut self, now: Instant, after: Duration) {
        let is_idle = |user: &User| now.saturating_duration_since(user.used) >= after;
        self.users.retain(|user| user.is_busy || !is_idle(user));
        self.drop_unused();
    }

    /// When the pipeline was used that has been idle for the longest.
    pub fn least_recently_used(&self) -> Option<Instant> {
        self.users.iter().filter(|user| !user.is_busy).map(|user| user.used).min()
    }

    /// Lets go of what no pipeline uses.
    pub fn drop_unused(&mut self) {
        let used: HashSet<&Key> = self.users.iter().flat_map(|user| &user.keys).collect();
        self.weights.retain(|key, _| used.contains(key));
    }
}
