//! The arena: records a trace, or replays a layout. Never both.

use crate::layout::Layout;
use crate::trace::{Event, Request, Trace};
use crate::{DType, Error, HostBuffer, Region, Shape, Tensor};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How many passes of a loop a dry run makes at most: they stand for the first, for those between,
/// and for the last.
pub const RECORDED_PASSES: usize = 3;

/// Gives tensors their memory: on paper in a dry run, at planned offsets in a real one.
///
/// Cloning makes another handle on the same arena.
#[derive(Clone)]
pub struct Arena {
    state: Arc<Mutex<State>>,
}

/// What a run really used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The highest offset that was in use at any time.
    pub peak_bytes: u64,
    /// The highest offset in use in each phase, in order.
    pub phase_peak_bytes: Vec<(String, u64)>,
    /// The most bytes that [`HostBuffer`]s held at any time.
    pub host_peak_bytes: u64,
}

/// Called with offset and length of a tensor that was born or has died.
type Hook = Box<dyn Fn(u64, u64) + Send>;

struct State {
    region: Region,
    alignment: u64,
    scopes: Vec<String>,
    alive: BTreeMap<usize, Range>,
    /// The event that comes next. A recording arena stands at the end of its trace, except in the
    /// later passes of a loop, which are held to the first.
    cursor: usize,
    /// A deviation that was met where it could not be reported.
    deviation: Option<(usize, String)>,
    host_bytes: u64,
    mode: Mode,
}

/// Offset and length in bytes.
type Range = (u64, u64);

enum Mode {
    Record(Trace),
    Replay(Box<Replay>),
}

struct Replay {
    layout: Arc<Layout>,
    measured: Measured,
    poison: Option<Hook>,
}

/// The life of one tensor's memory. It ends when this is dropped.
pub struct Life {
    arena: Arc<Mutex<State>>,
    request: usize,
    region: Region,
    offset: u64,
}

impl Life {
    /// The reservation that the memory is of.
    pub fn region(&self) -> Region {
        self.region
    }

    /// Offset in the arena, in bytes. 0 while recording.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// The life of a [`HostBuffer`] in the books of its arena.
struct HostLife {
    arena: Arc<Mutex<State>>,
    bytes: u64,
}

impl Drop for HostLife {
    fn drop(&mut self) {
        let mut state = self.arena.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.host_bytes -= self.bytes;
    }
}

impl Arena {
    /// An arena without memory that writes down what is asked of it. All sizes are rounded up to
    /// `alignment` bytes.
    pub fn record(alignment: u64) -> Arena {
        let trace =
            Trace { alignment, requests: Vec::new(), events: Vec::new(), host_peak_bytes: 0 };
        Arena::new(Region::ARENA, alignment, Mode::Record(trace))
    }

    /// An arena that gives each tensor the place that `layout` has for it.
    pub fn replay(layout: impl Into<Arc<Layout>>) -> Arena {
        Arena::replay_in(Region::ARENA, layout)
    }

    /// As [`Arena::replay`], in another reservation than the job's.
    pub fn replay_in(region: Region, layout: impl Into<Arc<Layout>>) -> Arena {
        let layout = layout.into();
        let alignment = layout.trace.alignment;
        let measured = Measured { peak_bytes: 0, phase_peak_bytes: Vec::new(), host_peak_bytes: 0 };
        let replay = Replay { layout, measured, poison: None };
        Arena::new(region, alignment, Mode::Replay(Box::new(replay)))
    }

    fn new(region: Region, alignment: u64, mode: Mode) -> Arena {
        let state = State {
            region,
            alignment,
            scopes: Vec::new(),
            alive: BTreeMap::new(),
            cursor: 0,
            deviation: None,
            host_bytes: 0,
            mode,
        };
        Arena { state: Arc::new(Mutex::new(state)) }
    }

    /// Calls `hook(offset, bytes)` for every range at the birth and at the death of its tensor,
    /// so that a test can fill it with garbage. Has no effect on a recording arena.
    pub fn poison_with(self, hook: impl Fn(u64, u64) + Send + 'static) -> Arena {
        if let Mode::Replay(replay) = &mut self.lock().mode {
            replay.poison = Some(Box::new(hook));
        }
        self
    }

    /// Whether this is a dry run.
    pub fn is_recording(&self) -> bool {
        matches!(self.lock().mode, Mode::Record(_))
    }

    /// Memory for `shape` elements of `dtype`, with unspecified contents. `label` names it in
    /// plans, after the scopes in force.
    ///
    /// # Errors
    /// [`Error::Deviation`] if the layout being replayed has another request at this point.
    pub fn alloc(
        &self,
        label: &str,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor, Error> {
        let shape = shape.into();
        let mut state = self.lock();
        let size = (shape.elements() as u64 * dtype.bytes()).max(1);
        let bytes = size.next_multiple_of(state.alignment);
        let label = match state.scopes.is_empty() {
            true => label.to_owned(),
            false => format!("{}/{label}", state.scopes.join(".")),
        };
        let (request, offset) = state.birth(Request { label, bytes })?;
        let life = Life { arena: self.state.clone(), request, region: state.region, offset };
        Ok(Tensor::in_arena(Arc::new(life), dtype, shape))
    }

    /// Zeroed memory on the host, for what waits there between two uses on the device. A dry run
    /// only counts it.
    ///
    /// # Errors
    /// [`Error::Device`] if the host has no such memory.
    pub fn host_buffer(&self, label: &str, bytes: u64) -> Result<HostBuffer, Error> {
        let mut state = self.lock();
        let is_dry = matches!(state.mode, Mode::Record(_));
        state.host_bytes += bytes;
        let held = state.host_bytes;
        let peak = match &mut state.mode {
            Mode::Record(trace) => &mut trace.host_peak_bytes,
            Mode::Replay(replay) => &mut replay.measured.host_peak_bytes,
        };
        *peak = held.max(*peak);
        drop(state);
        let life = HostLife { arena: self.state.clone(), bytes };
        HostBuffer::new(bytes, is_dry, Some(Box::new(life))).map_err(|error| Error::Device {
            device: "host".into(),
            what: format!("cannot have {bytes} bytes of memory for {label}: {error}"),
        })
    }

    /// Marks the beginning of a phase.
    ///
    /// # Errors
    /// [`Error::Deviation`] if the plan has no such phase here.
    pub fn phase(&self, name: &str) -> Result<(), Error> {
        let mut state = self.lock();
        state.step(Event::Phase(name.to_owned()))?;
        if let Mode::Replay(replay) = &mut state.mode {
            replay.measured.phase_peak_bytes.push((name.to_owned(), 0));
            let top = state.alive.values().map(|(offset, bytes)| offset + bytes).max();
            state.touch(top.unwrap_or(0));
        }
        Ok(())
    }

    /// Names what `body` allocates: `name` stands before its labels.
    pub fn scope<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        self.lock().scopes.push(name.to_owned());
        let result = body();
        self.lock().scopes.pop();
        result
    }

    /// Runs `body` with 0, 1, … `times - 1`. A recording arena runs it [`RECORDED_PASSES`] times at
    /// most, writes the first pass down and holds the others to it; a replaying one holds every pass
    /// to that record. So the passes must ask for the same memory. Whatever is born in a pass must end in it, and
    /// nothing else may: the next pass uses the same places.
    ///
    /// # Errors
    /// What `body` returns, or [`Error::Deviation`] if a pass differs from the plan or does not
    /// leave alive exactly what it found.
    pub fn repeat<E: From<Error>>(
        &self,
        times: usize,
        mut body: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.lock().step(Event::LoopBegin(times))?;
        let start = self.lock().cursor;
        let found: Vec<usize> = self.lock().alive.keys().copied().collect();
        let passes = if self.is_recording() { times.min(RECORDED_PASSES) } else { times };
        let mut end = None;
        for pass in 0..passes {
            self.lock().cursor = start;
            body(pass)?;
            let mut state = self.lock();
            state.check()?;
            if *end.get_or_insert(state.cursor) != state.cursor {
                let what = format!("pass {pass} of a loop did not ask for what the first did");
                return Err(deviation(state.cursor, what).into());
            }
            state.expect(&Event::LoopEnd)?;
            state.expect_alive(&found)?;
        }
        self.lock().step(Event::LoopEnd)?;
        Ok(())
    }

    /// The finished trace of a dry run.
    ///
    /// # Errors
    /// [`Error::Deviation`] if this arena replays a layout instead.
    pub fn into_trace(self) -> Result<Trace, Error> {
        match &self.lock().mode {
            Mode::Record(trace) => Ok(trace.clone()),
            Mode::Replay(_) => Err(deviation(0, "a replay has no trace".into())),
        }
    }

    /// Ends a real run: the plan must have been followed to its end.
    ///
    /// # Errors
    /// [`Error::Deviation`] at any difference from the plan.
    pub fn finish(&self) -> Result<Measured, Error> {
        let state = self.lock();
        state.check()?;
        let planned = state.trace().events.len();
        match &state.mode {
            Mode::Record(_) => Err(deviation(planned, "this is a dry run".into())),
            Mode::Replay(_) if state.cursor != planned => {
                let what = format!("the run ended early; {planned} events were planned");
                Err(deviation(state.cursor, what))
            }
            Mode::Replay(replay) => Ok(replay.measured.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut state = self.arena.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.death(self.request);
    }
}

fn deviation(event: usize, what: String) -> Error {
    Error::Deviation { event, what }
}

impl State {
    /// The trace that is being written, or followed.
    fn trace(&self) -> &Trace {
        match &self.mode {
            Mode::Record(trace) => trace,
            Mode::Replay(replay) => &replay.layout.trace,
        }
    }

    /// The trace, if the next event is to be written down and not to be compared.
    fn writes(&mut self) -> Option<&mut Trace> {
        match &mut self.mode {
            Mode::Record(trace) if self.cursor == trace.events.len() => Some(trace),
            _ => None,
        }
    }

    fn birth(&mut self, request: Request) -> Result<(usize, u64), Error> {
        self.check()?;
        let number = match self.writes() {
            Some(trace) => {
                let number = trace.requests.len();
                trace.requests.push(request.clone());
                trace.events.push(Event::Birth(number));
                number
            }
            None => match self.trace().events.get(self.cursor) {
                Some(&Event::Birth(n)) if self.trace().requests[n] == request => n,
                _ => {
                    let what = format!("asked for {request:?}, planned {}", self.planned());
                    return Err(deviation(self.cursor, what));
                }
            },
        };
        self.cursor += 1;
        let offset = match &self.mode {
            Mode::Record(_) => 0,
            Mode::Replay(replay) => replay.layout.offsets[number],
        };
        self.alive.insert(number, (offset, request.bytes));
        self.touch(offset + request.bytes);
        self.poison(offset, request.bytes);
        Ok((number, offset))
    }

    fn death(&mut self, request: usize) {
        if let Some((offset, bytes)) = self.alive.remove(&request) {
            self.poison(offset, bytes);
        }
        if let Some(trace) = self.writes() {
            trace.events.push(Event::Death(request));
        } else if self.trace().events.get(self.cursor) != Some(&Event::Death(request)) {
            // Cannot fail here: reported by the next call that can.
            let label = &self.trace().requests[request].label;
            let what = format!("{label} ended, planned {}", self.planned());
            self.deviation.get_or_insert((self.cursor, what));
            return;
        }
        self.cursor += 1;
    }

    /// Records an event, or holds the run to it.
    fn step(&mut self, event: Event) -> Result<(), Error> {
        self.expect(&event)?;
        if let Some(trace) = self.writes() {
            trace.events.push(event);
        }
        self.cursor += 1;
        Ok(())
    }

    /// Whether `event` is what the plan has next. Anything is, where it is being written.
    fn expect(&mut self, event: &Event) -> Result<(), Error> {
        self.check()?;
        if self.writes().is_some() || self.trace().events.get(self.cursor) == Some(event) {
            return Ok(());
        }
        Err(deviation(self.cursor, format!("came to {event:?}, planned {}", self.planned())))
    }

    /// Holds the end of a loop's pass to what was alive before it.
    fn expect_alive(&self, found: &[usize]) -> Result<(), Error> {
        let label = |n: usize| &self.trace().requests[n].label;
        let left = self.alive.keys().find(|n| found.binary_search(n).is_err());
        let ended = found.iter().find(|n| !self.alive.contains_key(n));
        let what = match (left, ended) {
            (Some(&n), _) => {
                format!("{} outlives the pass of a loop that it was born in", label(n))
            }
            (_, Some(&n)) => format!("{} ended in a loop that it was born before", label(n)),
            (None, None) => return Ok(()),
        };
        Err(deviation(self.cursor, what))
    }

    fn check(&self) -> Result<(), Error> {
        match &self.deviation {
            Some((event, what)) => Err(deviation(*event, what.clone())),
            None => Ok(()),
        }
    }

    /// What comes next, in words.
    fn planned(&self) -> String {
        let request = |n: usize| format!("{:?}", self.trace().requests[n]);
        match self.trace().events.get(self.cursor) {
            None => "the end".into(),
            Some(&Event::Birth(n)) => format!("the birth of {}", request(n)),
            Some(&Event::Death(n)) => format!("the death of {}", request(n)),
            Some(other) => format!("{other:?}"),
        }
    }

    fn touch(&mut self, top: u64) {
        if let Mode::Replay(replay) = &mut self.mode {
            let measured = &mut replay.measured;
            measured.peak_bytes = measured.peak_bytes.max(top);
            if let Some((_, peak)) = measured.phase_peak_bytes.last_mut() {
                *peak = (*peak).max(top);
            }
        }
    }

    fn poison(&self, offset: u64, bytes: u64) {
        if let Mode::Replay(replay) = &self.mode
            && let Some(hook) = &replay.poison
        {
            hook(offset, bytes);
        }
    }
}
