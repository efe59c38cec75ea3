//! The card's context, its queues, and points in them.

use super::sys;
use super::words::{NOT_READY, check};
use crate::driver::{Event, Queue};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The card's primary context: the one that all libraries of a process share.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: the driver's handles may be used by all threads.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub fn new(device: sys::CUdevice) -> Result<Context, String> {
        let mut handle = null_mut();
        // SAFETY: writes the handle.
        let retained = unsafe { sys::cuDevicePrimaryCtxRetain(&mut handle, device) };
        check("making a context on the card", retained)?;
        Ok(Context { device, handle })
    }

    /// Keeps the context to the end of the process: what a library that is never unloaded knows of it
    /// must stay true.
    pub fn keep(&self) -> Result<(), String> {
        let mut handle = null_mut();
        // SAFETY: writes the handle.
        let retained = unsafe { sys::cuDevicePrimaryCtxRetain(&mut handle, self.device) };
        check("keeping the context on the card", retained)
    }

    /// What the thread asks of the driver from now on, it asks of this context.
    pub fn enter(&self) -> Result<(), String> {
        // SAFETY: the context is there as long as this is.
        check("entering the card's context", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Bytes that are free, and all there are.
    pub fn memory(&self) -> Result<(u64, u64), String> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        let asked = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        check("asking how much memory is free", asked)?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The card's queues, and the points that were recorded in them.
pub(super) struct Queues {
    streams: [sys::CUstream; 3],
    events: Mutex<Events>,
}

/// Events are made once and used again: nothing is allocated in a job once enough were made.
#[derive(Default)]
struct Events {
    all: Vec<sys::CUevent>,
    /// Those that nobody asks for, by where they are in `all`.
    free: Vec<usize>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Queues {}
// SAFETY: as for `Context`.
unsafe impl Sync for Queues {}

/// Events that are made before a job begins.
const EVENTS: usize = 64;

impl Queues {
    /// Queues on the context that this thread has entered, as it has whenever a method is called.
    pub fn new() -> Result<Queues, String> {
        let mut queues = Queues { streams: [null_mut(); 3], events: Mutex::default() };
        for stream in &mut queues.streams {
            // SAFETY: writes the handle.
            let made = unsafe { sys::cuStreamCreate(stream, sys::STREAM_NON_BLOCKING) };
            check("making a queue on the card", made)?;
        }
        let made: Result<Vec<Event>, String> =
            (0..EVENTS).map(|_| queues.record(Queue::Computing)).collect();
        made?.into_iter().for_each(|event| queues.forget(event));
        Ok(queues)
    }

    pub fn stream(&self, queue: Queue) -> sys::CUstream {
        self.streams[queue as usize]
    }

    pub fn record(&self, queue: Queue) -> Result<Event, String> {
        let mut events = self.events();
        let number = match events.free.pop() {
            Some(number) => number,
            None => {
                // Whoever waits sleeps meanwhile.
                let flags = sys::EVENT_BLOCKING_SYNC | sys::EVENT_DISABLE_TIMING;
                let mut event = null_mut();
                // SAFETY: writes the handle.
                check("making an event", unsafe { sys::cuEventCreate(&mut event, flags) })?;
                events.all.push(event);
                events.all.len() - 1
            }
        };
        // SAFETY: both are there.
        let recorded = unsafe { sys::cuEventRecord(events.all[number], self.stream(queue)) };
        if let Err(what) = check("recording an event", recorded) {
            events.free.push(number);
            return Err(what);
        }
        Ok(Event(number as u64))
    }

    pub fn hold_back(&self, queue: Queue, event: Event) -> Result<(), String> {
        let event = self.event(event);
        // SAFETY: both are there.
        let held = unsafe { sys::cuStreamWaitEvent(self.stream(queue), event, 0) };
        check("making a queue wait", held)
    }

    pub fn is_passed(&self, event: Event) -> Result<bool, String> {
        // SAFETY: it is there.
        match unsafe { sys::cuEventQuery(self.event(event)) } {
            NOT_READY => Ok(false),
            other => check("asking for an event", other).map(|()| true),
        }
    }

    pub fn wait_for(&self, event: Event) -> Result<(), String> {
        // SAFETY: it is there.
        check("waiting for the card", unsafe { sys::cuEventSynchronize(self.event(event)) })
    }

    pub fn forget(&self, event: Event) {
        self.events().free.push(event.0 as usize);
    }

    /// Waits for everything asked of a queue so far.
    pub fn finish(&self, queue: Queue) -> Result<(), String> {
        let event = self.record(queue)?;
        let waited = self.wait_for(event);
        self.forget(event);
        waited
    }

    fn event(&self, event: Event) -> sys::CUevent {
        self.events().all[event.0 as usize]
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let events = self.events.get_mut().unwrap_or_else(PoisonError::into_inner);
        for event in events.all.drain(..) {
            // SAFETY: made here, and never used again.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
        for stream in self.streams.into_iter().filter(|stream| !stream.is_null()) {
            // SAFETY: as above.
            let _ = unsafe { sys::cuStreamDestroy_v2(stream) };
        }
    }
}
