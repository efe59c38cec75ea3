//! What a worker is told, line by line.

use super::desk::{Desk, Job};
use super::{end_of, end_waiting};
use crate::exit::Failure;
use crate::progress::JobName;
use crate::say::{line, note};
use serde::Deserialize;
use serde_json::json;
use std::io::BufRead;
use std::sync::Arc;

/// A line of standard input.
#[derive(Deserialize)]
#[serde(untagged)]
enum Order {
    Job { job: String, words: Vec<String> },
    Cancel { cancel: String },
}

/// Does what each line says until there are no more, and closes the desk then. What is no order is
/// told to people, and else passed over.
pub fn read(lines: impl BufRead, desk: &Desk) {
    for text in lines.lines() {
        let Ok(text) = text else { break };
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&text) {
            Ok(Order::Job { job, words }) => add(&job, words, desk),
            Ok(Order::Cancel { cancel }) => {
                end_waiting(JobName::new(&cancel).and_then(|name| desk.cancel(name)));
            }
            Err(error) => note!("this is no order: {error}"),
        }
    }
    end_waiting(desk.close());
}

fn add(name: &str, words: Vec<String>, desk: &Desk) {
    match JobName::new(name) {
        Some(name) => end_waiting(desk.add(Job { name, words, stop: Arc::default() })),
        None => {
            let most = JobName::MOST_BYTES;
            let failure = Failure::input(format!("no job's name has more than {most} bytes"));
            let mut event = end_of(Err(failure));
            event["job"] = json!(name);
            line!("{event}");
        }
    }
}
