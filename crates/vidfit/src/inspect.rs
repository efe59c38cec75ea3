//! `vidfit inspect`.

mod lora;

use crate::args::InspectArgs;
use crate::demo;
use crate::exit::Failure;
use crate::human::{grouped, size};
use crate::model::place;
use crate::say::answer;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use vidfit_engine::checkpoint::{ComponentReport, ComponentState, Inspection, inspect};

/// Prints what a checkpoint is. Fails if something is missing or broken, after saying all of it.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let name = args.model();
    if let Some(path) = lora_at(name).filter(|_| name != demo::NAME) {
        return lora::run(path, args.json);
    }
    let (place, _) = place(name)?;
    let inspection = inspect(place)?;
    match args.json {
        true => answer(&as_json(&inspection).to_string())?,
        false => answer(&as_text(&inspection))?,
    }
    match inspection.is_complete() {
        true => Ok(()),
        false => Err(Failure::input("the checkpoint cannot be used as it is; see above")),
    }
}

/// The path, if it is that of a file: a checkpoint is a folder.
fn lora_at(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    let is_one = path.is_file() || path.join(vidfit_engine::lora::FILE_NAME).is_file();
    is_one.then_some(path)
}

fn as_text(inspection: &Inspection) -> String {
    let variant = inspection.variant.map_or("unknown model", |variant| variant.name());
    let place = &inspection.place;
    let mut lines = vec![match place.built_in() {
        Some(model) => format!("{} (like {variant}), built into vidfit", model.name()),
        None => format!("{variant} in {}", place.path().display()),
    }];
    for ComponentReport { name, state } in &inspection.components {
        lines.push(match state {
            ComponentState::Weights { parameters, bytes, tensors, dtypes, shards } => format!(
                "  {name:13} {:>15} parameters  {:>9}  {} in {tensors} tensors, {}",
                grouped(*parameters),
                size(*bytes),
                types(dtypes),
                match &shards[..] {
                    [one] => one.clone(),
                    shards => format!("{} shards", shards.len()),
                }
            ),
            ComponentState::Present(what) => format!("  {name:13} {what}"),
            ComponentState::Broken(error) => format!("  {name:13} cannot be used: {error}"),
        });
    }
    match inspection.differences.as_deref() {
        Some([]) => lines.push("  configured as published".into()),
        Some(fields) => {
            lines.push(format!("  configured otherwise than published in: {}", fields.join(", ")));
        }
        None => {}
    }
    lines.join("\n")
}

fn types(dtypes: &BTreeMap<String, usize>) -> String {
    let names: Vec<&str> = dtypes.keys().map(String::as_str).collect();
    names.join(" and ")
}

fn as_json(inspection: &Inspection) -> serde_json::Value {
    let components = inspection.components.iter().map(|ComponentReport { name, state }| {
        let report = match state {
            ComponentState::Weights { parameters, bytes, tensors, dtypes, shards } => json!({
                "complete": true, "parameters": parameters, "bytes": bytes, "tensors": tensors,
                "dtypes": dtypes, "shards": shards,
            }),
            ComponentState::Present(what) => json!({ "complete": true, "what": what }),
            ComponentState::Broken(error) => {
                json!({ "complete": false, "error": error.to_string() })
            }
        };
        ((*name).to_owned(), report)
    });
    json!({
        "dir": inspection.place.path(),
        "built_in": inspection.place.built_in().is_some(),
        "variant": inspection.variant.map(|variant| variant.name()),
        "complete": inspection.is_complete(),
        "differs_from_published": inspection.differences,
        "components": components.collect::<serde_json::Map<_, _>>(),
    })
}
