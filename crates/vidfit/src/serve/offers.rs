//! The models that may be ordered, and what is known of them.

use crate::args::Command;
use crate::defaults;
use crate::demo;
use crate::exit::Failure;
use crate::model::{Model, known, place};
use crate::say::note;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vidfit_engine::checkpoint::{Checkpoint, Place, Variant};
use vidfit_engine::hub::{HubConfig, list_local};
use vidfit_engine::request::{Job, Request, Start};
use vidfit_engine::settings::Settings;
use vidfit_server::{Refusal, Task};

/// What models may be ordered.
pub struct Offers {
    /// As the user names them; what is there, if he names none.
    named: Vec<String>,
    tasks: Vec<Task>,
    opened: Mutex<BTreeMap<PathBuf, (SystemTime, Checkpoint)>>,
    known: Mutex<Option<(Instant, Vec<Offer>)>>,
    /// Models that were told to be broken.
    told: Mutex<BTreeSet<String>>,
}

/// A model that may be ordered.
#[derive(Clone, Debug)]
pub struct Offer {
    /// How a command line names it.
    pub spelled: String,
    /// What clients are told.
    pub about: vidfit_server::Model,
}

/// How long what is known of models holds.
const FRESH: Duration = Duration::from_secs(5);

impl Offers {
    /// Of these models, for these tasks.
    pub fn new(named: Vec<String>, tasks: Vec<Task>) -> Offers {
        Offers {
            named,
            tasks,
            opened: Mutex::default(),
            known: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// All of them, the default first.
    pub fn all(&self) -> Vec<Offer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((when, offers)) if when.elapsed() < FRESH => offers.clone(),
            _ => {
                let offers = self.look();
                *known = Some((Instant::now(), offers.clone()));
                offers
            }
        }
    }

    /// The one that an order names, or the default, for a task.
    ///
    /// # Errors
    /// A refusal, if there is none.
    pub fn find(&self, name: Option<&str>, task: Task) -> Result<Offer, Refusal> {
        if !self.tasks.contains(&task) {
            let message = format!("this server makes no videos from {}", from(task));
            return Err(Refusal::new("task_off", message).about("task"));
        }
        let offers = self.all();
        let takes = |offer: &&Offer| offer.about.tasks.contains(&task);
        let ids = || -> String {
            let ids: Vec<&str> =
                offers.iter().filter(takes).map(|offer| offer.about.id.as_str()).collect();
            match ids.is_empty() {
                true => format!("no model here starts from {}", from(task)),
                false => {
                    format!("those here that start from {} are: {}", from(task), ids.join(", "))
                }
            }
        };
        let refuse = |message: String| Refusal::new("unknown_model", message).about("model");
        let Some(name) = name else {
            let standing = default_for(task)
                .map(|spelled| offers.iter().filter(takes).find(|offer| offer.spelled == spelled));
            let found = standing.flatten().or_else(|| offers.iter().find(takes));
            return found.cloned().ok_or_else(|| {
                refuse(format!("there is no model here that starts from {}", from(task)))
            });
        };
        let called = |id: &str| offers.iter().find(|offer| offer.about.id.eq_ignore_ascii_case(id));
        // A short name is that of the published model.
        let short = Variant::named(name).filter(|_| !name.contains('/'));
        match called(name).or_else(|| short.and_then(|variant| called(&variant.id()))) {
            Some(offer) if takes(&offer) => Ok(offer.clone()),
            Some(offer) => Err(refuse(format!(
                "{} does not start from {}; {}",
                offer.about.id,
                from(task),
                ids()
            ))),
            None => Err(refuse(format!("there is no model {name:?} here; {}", ids()))),
        }
    }

    /// A published model for a task, whether or not it is on this machine: for plans alone.
    pub fn published(&self, id: &str, task: Task) -> Option<Offer> {
        let variant = Variant::named(id)?;
        let is_its_name = id.eq_ignore_ascii_case(&variant.id()) || !id.contains('/');
        let about = self.about(&variant.id()).ok()?;
        let about = vidfit_server::Model { available: false, ..about };
        let takes = is_its_name && about.tasks.contains(&task);
        takes.then(|| Offer { spelled: variant.id(), about })
    }

    /// The model of a job that was accepted, if it can be made as things are now.
    ///
    /// # Errors
    /// A refusal that says what is missing.
    pub fn find_now(&self, id: &str, task: Task) -> Result<Offer, Refusal> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let offer = self.find(Some(id), task)?;
        if offer.about.available {
            return Ok(offer);
        }
        let message = format!("the weights of {id} are not on this machine any more");
        Err(Refusal::new("unknown_model", message).about("model"))
    }

    /// A model as the command line names it: with its weights, if they are on this machine. It is
    /// opened once, as long as its folders stay as they are.
    ///
    /// # Errors
    /// Bad input if it is broken, or nothing is known of it.
    pub fn open(&self, spelled: &str) -> Result<Model, Failure> {
        let Ok((place, spelled)) = place(spelled) else { return known(spelled) };
        let (path, changed) = (place.path(), changed(&place));
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, checkpoint)) = opened.get(&path)
            && *when == changed
        {
            return Ok(Model { checkpoint: checkpoint.clone(), spelled });
        }
        let checkpoint = Checkpoint::open(place)?;
        opened.insert(path, (changed, checkpoint.clone()));
        Ok(Model { checkpoint, spelled })
    }

    fn look(&self) -> Vec<Offer> {
        let mut offers: Vec<Offer> = Vec::new();
        for spelled in self.spelled() {
            match self.about(&spelled) {
                Ok(about) if about.tasks.is_empty() => {}
                Ok(about) if offers.iter().any(|offer| offer.about.id == about.id) => {}
                Ok(about) => offers.push(Offer { spelled, about }),
                Err(Failure { message, .. }) => {
                    let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                    if told.insert(spelled.clone()) {
                        note!("warning: {spelled} is not offered: {message}");
                    }
                }
            }
        }
        offers
    }

    /// How a command line names those that there are, the default first.
    fn spelled(&self) -> Vec<String> {
        let mut names = match self.named.is_empty() {
            false => self.named.clone(),
            true => {
                let local = list_local(&HubConfig::from_env()).unwrap_or_default();
                let is_ours = |class: &String| class.starts_with("CogVideoX");
                let ours = local.into_iter().filter(|model| {
                    model.pipeline_class.as_ref().is_some_and(is_ours)
                        && model.revisions.iter().any(|revision| revision == "main")
                });
                let there = std::iter::once(demo::NAME.to_owned());
                let standing =
                    [Task::T2v, Task::I2v, Task::V2v].into_iter().filter_map(default_for);
                standing.chain(there).chain(ours.map(|model| model.id)).collect()
            }
        };
        if let Some(first) = default_for(Task::T2v)
            && let Some(place) = names.iter().position(|name| *name == first)
        {
            let first = names.remove(place);
            names.insert(0, first);
        }
        names
    }

    /// What clients are told of a model: what it makes where nothing is said.
    fn about(&self, spelled: &str) -> Result<vidfit_server::Model, Failure> {
        let model = self.open(spelled)?;
        let checkpoint = &model.checkpoint;
        let (start, own) = match checkpoint.variant.needs_image() {
            true => (Start::Image, &[Task::I2v][..]),
            false => (Start::Text, &[Task::T2v, Task::V2v][..]),
        };
        let words = ["vidfit", "plan", &format!("--model={spelled}")].map(OsString::from);
        let Command::Plan(args) = defaults::try_parse(words)?.command else {
            return Err(Failure::other("it cannot be planned with"));
        };
        let request = Request { start, ..Request::new("") };
        let (job, _) = Job::new(checkpoint, &request)?;
        let (id, owned_by) = id(spelled, &checkpoint.place);
        let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(vidfit_server::Model {
            id,
            created: changed(&checkpoint.place)
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            owned_by,
            tasks: own.iter().copied().filter(|task| self.tasks.contains(task)).collect(),
            width: whole(job.width),
            height: whole(job.height),
            num_frames: whole(job.frames),
            fps: args.output.fps.unwrap_or(checkpoint.variant.fps()),
            num_inference_steps: whole(args.job.steps),
            guidance_scale: args.job.guidance,
            available: checkpoint.has_weights(),
        })
    }
}

/// How people say what a task starts from.
fn from(task: Task) -> &'static str {
    match task {
        Task::T2v => "text alone",
        Task::I2v => "an image",
        Task::V2v => "a video",
    }
}

/// The model that the settings name for a task.
fn default_for(task: Task) -> Option<String> {
    let settings = Settings::load().ok()?;
    let key = match task {
        Task::T2v => "t2v_model",
        Task::I2v => "i2v_model",
        Task::V2v => "v2v_model",
    };
    let setting = settings.get(key).or_else(|| settings.get("model"))?;
    Some(setting.value.clone())
}

/// What clients call a model, and whose it is. Of a folder they learn nothing but its own name.
fn id(spelled: &str, place: &Place) -> (String, String) {
    let published = Variant::named(spelled).map(|variant| variant.id());
    match place {
        Place::Program { .. } => (spelled.to_owned(), "vidfit".to_owned()),
        Place::Folder(_) if Path::new(spelled).is_dir() => {
            let path = std::path::absolute(spelled).unwrap_or_else(|_| spelled.into());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, "local".to_owned())
        }
        Place::Folder(_) => {
            let id = published.unwrap_or_else(|| spelled.to_owned());
            let owner = id.split('/').next().unwrap_or_default().to_owned();
            (id, owner)
        }
    }
}

/// When the folders of a model were changed last.
fn changed(place: &Place) -> SystemTime {
    let Place::Folder(dir) = place else { return UNIX_EPOCH };
    let folders = ["", "text_encoder", "transformer", "vae", "scheduler", "tokenizer"];
    let time = |folder: &&str| dir.join(folder).metadata().and_then(|it| it.modified()).ok();
    folders.iter().filter_map(time).max().unwrap_or(UNIX_EPOCH)
}
