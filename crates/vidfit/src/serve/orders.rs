//! Orders held against the models and the device, by the very code of `plan` and `generate`.

use super::devices::Devices;
use super::loras::Loras;
use super::offers::{Offer, Offers};
use super::words::{in_frames, options};
use crate::args::{Args, Command, GenerateArgs};
use crate::decide::{Wanted, least, needs};
use crate::defaults;
use crate::exit::Failure;
use crate::generate::{TooBig, chosen_on};
use crate::plan::PlanArgs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use vidfit_engine::planner::{PlanReport, Refused};
use vidfit_server::{Order, Reference, ReferenceKind, Refusal, Settled, Task};

/// What orders are held against.
pub struct Orders {
    /// The models.
    pub offers: Offers,
    /// The device.
    pub devices: Devices,
    /// The LoRAs.
    pub loras: Loras,
    /// Plans, by the options that led to them.
    plans: Mutex<BTreeMap<Vec<String>, (Instant, Value)>>,
}

/// How long a plan holds: memory comes and goes.
const FRESH: Duration = Duration::from_secs(15);

/// Plans that are kept.
const MOST_PLANS: usize = 256;

impl Orders {
    /// Against these.
    pub fn new(offers: Offers, devices: Devices, loras: Loras) -> Orders {
        Orders { offers, devices, loras, plans: Mutex::default() }
    }

    /// What `vidfit plan --json` prints for an order: it is the same whatever is to be seen in the
    /// video, so it is kept for a while.
    ///
    /// # Errors
    /// A refusal for what cannot be made at all.
    pub fn plan(&self, order: &Order, task: Task) -> Result<Value, Refusal> {
        let (offer, words) = self.options(order, task, None, true)?;
        let of_picture = ["--seed=", "--negative-prompt="];
        let decides = |word: &String| !of_picture.iter().any(|option| word.starts_with(option));
        let words: Vec<String> = words.into_iter().filter(decides).collect();
        let kept = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, plan)) = kept().get(&words)
            && when.elapsed() < FRESH
        {
            return Ok(plan.clone());
        }
        let Command::Plan(args) = read("plan", &words)?.command else {
            return Err(refusal(Failure::other("it cannot be planned")));
        };
        let report = self.report(&args).map_err(refusal)?;
        let plan = serde_json::to_value(report);
        let mut plan = plan.map_err(|error| refusal(Failure::other(error)))?;
        plan["available"] = offer.about.available.into();
        let mut kept = kept();
        kept.retain(|_, (when, _)| when.elapsed() < FRESH);
        if kept.len() < MOST_PLANS {
            kept.insert(words, (Instant::now(), plan.clone()));
        }
        Ok(plan)
    }

    fn report(&self, args: &PlanArgs) -> Result<PlanReport, Failure> {
        let (machine, target) = (args.machine.on(self.devices.machine()), self.devices.target()?);
        let open = |name: &str| self.offers.open(name);
        let wanted = Wanted::new(&args.job, &machine, Some(&args.fit), target, false, open)?;
        let decided = match wanted.decide() {
            // That the RAM is too small is an answer as well.
            Err(failure) if failure.is_about_room() => {
                let least = least(&wanted.ask()).map_err(|_| failure)?;
                Err(Refused::new(least))
            }
            decided => decided?,
        };
        Ok(match decided {
            Ok(decided) => {
                PlanReport::of(&wanted.models[decided.model].checkpoint, &decided.planned)
            }
            Err(refused) => PlanReport::of_refused(wanted.checkpoint(), &refused),
        })
    }

    /// Decides everything that an order leaves open, as the worker will.
    ///
    /// # Errors
    /// A refusal for what cannot be made, or does not fit.
    pub fn settle(&self, order: &Order, reference: Option<&Reference>) -> Result<Settled, Refusal> {
        let task = reference.map_or(Task::T2v, |reference| match reference.kind {
            ReferenceKind::Image => Task::I2v,
            ReferenceKind::Video => Task::V2v,
        });
        let input = reference.map(|reference| reference.path.as_path());
        let (offer, mut words) = self.options(order, task, input, false)?;
        words.insert(0, format!("--prompt={}", order.prompt));
        let jobs = self.devices.queue_dir().join("jobs");
        words.push("--no-keep".into());
        words.push(format!("--runs={}", jobs.display()));
        words.push(format!("--output={}", jobs.join("video.mp4").display()));
        let Command::Generate(args) = read("generate", &words)?.command else {
            return Err(refusal(Failure::other("it cannot be made")));
        };
        let machine = args.machine.on(self.devices.machine());
        let args = GenerateArgs { machine, ..*args };
        let target = self.devices.target().map_err(refusal)?;
        let video = chosen_on(target, &args, |name| self.offers.open(name)).map_err(refusal)?;
        let video = match video {
            Ok(video) => video,
            Err(too_big) => return Err(does_not_fit(&too_big)),
        };
        if jobs.is_dir() {
            video.check_disk(&args).map_err(no_disk)?;
        }
        let job = &video.planned.job;
        let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Settled {
            task,
            model: offer.about.id,
            width: whole(job.width),
            height: whole(job.height),
            num_frames: whole(job.asked_frames()),
            fps: args.output.fps.unwrap_or(video.model.checkpoint.variant.fps()),
            num_inference_steps: whole(args.job.steps),
            guidance_scale: args.job.guidance,
            seed: args.job.seed,
            warnings: video.planned.warnings.clone(),
            plan: serde_json::to_value(video.report()).ok(),
        })
    }

    /// The model of an order, and the options that it stands for.
    fn options(
        &self,
        order: &Order,
        task: Task,
        input: Option<&Path>,
        is_plan: bool,
    ) -> Result<(Offer, Vec<String>), Refusal> {
        let offer = match self.offers.find(order.model.as_deref(), task) {
            // A plan needs no files, so it is made of what is published as well.
            Err(refusal) if is_plan && refusal.code == "unknown_model" => {
                let published =
                    order.model.as_deref().and_then(|id| self.offers.published(id, task));
                published.ok_or(refusal)?
            }
            found => found?,
        };
        let model = self.offers.open(&offer.spelled).map_err(refusal)?;
        let order = in_frames(order, &model.checkpoint, task);
        // A plan does not look at it.
        let input = input.unwrap_or(Path::new("a file"));
        let words = options(&order, &offer.spelled, task, input, &self.loras)?;
        Ok((offer, words))
    }
}

/// Reads options of a command, with the settings of this machine as defaults.
fn read(command: &str, options: &[String]) -> Result<Args, Refusal> {
    let words = ["vidfit", command].into_iter().chain(options.iter().map(String::as_str));
    defaults::try_parse(words.map(OsString::from)).map_err(|failure| {
        // Clients have no command line.
        let message =
            failure.message.replace("`vidfit presets` explains", "GET /v1/presets explains");
        refusal(Failure { message, ..failure })
    })
}

/// A failure as clients are told of it.
pub fn refusal(failure: Failure) -> Refusal {
    let code = match failure.outcome() {
        "refused" if failure.is_about_room() => "does_not_fit",
        "refused" => "invalid_request",
        _ => "failed",
    };
    let field = field_of(&failure.message);
    let refusal = Refusal::new(code, failure.message);
    match field {
        Some(field) => refusal.about(field),
        None => refusal,
    }
}

/// The field of an order that a message of the program is about: it knows options, not fields.
fn field_of(message: &str) -> Option<&'static str> {
    let fields = [
        ("frames cannot be made", "num_frames"),
        ("frames are more than vidfit", "num_frames"),
        ("pixels are more than vidfit plans", "num_frames"),
        ("a width of", "width"),
        ("a height of", "height"),
        ("vidfit models pull", "model"),
        ("there is no preset", "preset"),
    ];
    fields.into_iter().find(|(words, _)| message.contains(words)).map(|(_, field)| field)
}

/// Why a job's files cannot be written.
fn no_disk(failure: Failure) -> Refusal {
    match failure.is_machines {
        true => Refusal::new("disk_full", failure.message),
        false => refusal(failure),
    }
}

fn does_not_fit(TooBig { wanted, refused }: &TooBig) -> Refusal {
    let report = PlanReport::of_refused(wanted.checkpoint(), refused);
    let needs = needs(&report);
    Refusal::new("does_not_fit", format!("{needs}. Ask for a smaller or shorter video"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, MachineArgs};

    fn machine(options: &str) -> MachineArgs {
        let words = ["vidfit", "serve", "--threads=1"].into_iter().chain(options.split('|'));
        let words = words.map(OsString::from);
        match defaults::try_parse(words).unwrap().command {
            Command::Serve(args) => args.machine,
            _ => panic!("another command"),
        }
    }

    fn orders(device: &str, tasks: &[Task]) -> Orders {
        let fixtures = "../../tests/reference/fixtures/checkpoints";
        let image_model = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures).join("5b-i2v");
        let models = ["demo", image_model.to_str().unwrap(), "zai-org/CogVideoX-5b"];
        let offers = Offers::new(models.map(str::to_owned).to_vec(), tasks.to_vec());
        let devices = Devices::new(machine(device), Path::new("no-queue"));
        Orders::new(offers, devices, Loras(None))
    }

    const ALL: [Task; 3] = [Task::T2v, Task::I2v, Task::V2v];

    fn ball() -> Order {
        Order { prompt: "a red ball moving right".into(), ..Order::default() }
    }

    #[test]
    fn models_are_told_with_what_they_make() {
        let ids = |tasks: &[Task]| -> Vec<String> {
            let all = orders("--device=cpu", tasks).offers.all();
            all.into_iter().map(|offer| offer.about.id).collect()
        };
        assert_eq!(ids(&ALL), ["demo", "5b-i2v", "zai-org/CogVideoX-5b"]);
        assert_eq!(ids(&[Task::I2v]), ["5b-i2v"]);
        let all = orders("--device=cpu", &ALL).offers.all();
        let demo = &all[0].about;
        assert_eq!((demo.width, demo.height, demo.num_frames, demo.fps), (64, 64, 17, 8.0));
        assert_eq!((demo.num_inference_steps, demo.guidance_scale), (50, 2.5));
        assert_eq!(demo.tasks, [Task::T2v, Task::V2v]);
        assert!(demo.available && all[1].about.available && !all[2].about.available);
        assert_eq!((&*all[1].about.owned_by, &*all[2].about.owned_by), ("local", "zai-org"));
        assert_eq!((all[2].about.width, all[2].about.num_frames), (720, 49));
    }

    #[test]
    fn what_is_settled_is_what_the_command_line_would_make() {
        let orders = orders("--device=cpu", &ALL);
        let settled = orders.settle(&ball(), None).unwrap();
        assert_eq!(settled.model, "demo");
        assert_eq!((settled.width, settled.height, settled.num_frames), (64, 64, 17));
        assert_eq!((settled.num_inference_steps, settled.seed), (50, 42));
        assert_eq!(settled.plan.unwrap()["fits"], true);
        let order = Order { seconds: Some(1.0), seed: Some(7), fps: Some(16.0), ..ball() };
        let settled = orders.settle(&order, None).unwrap();
        assert_eq!((settled.num_frames, settled.seed, settled.fps), (17, 7, 16.0));
        assert!(settled.warnings.iter().any(|warning| warning.contains("2.00 times as")));
        let fast = Order { preset: Some("fast".into()), ..ball() };
        assert_eq!(orders.settle(&fast, None).unwrap().num_inference_steps, 30);
    }

    #[test]
    fn what_cannot_be_made_is_refused_in_words() {
        let orders = orders("--device=sim:1MB", &[Task::T2v, Task::I2v]);
        let refused = |order: Order, code: &str, param: Option<&str>, words: &str| {
            let refusal = orders.settle(&order, None).unwrap_err();
            assert_eq!((&*refusal.code, refusal.param.as_deref()), (code, param), "{refusal:?}");
            assert!(refusal.message.contains(words), "{refusal:?}");
        };
        refused(ball(), "does_not_fit", None, "may be used on sim:1MB");
        let model = |model: &str| Order { model: Some(model.into()), ..ball() };
        refused(model("sora-2"), "unknown_model", Some("model"), "are: demo");
        refused(model("/etc"), "unknown_model", Some("model"), "\"/etc\"");
        refused(model("5b-I2V"), "unknown_model", Some("model"), "does not start from text");
        refused(model("5b"), "invalid_request", Some("model"), "vidfit models pull");
        let frames = |frames: u32| Order { num_frames: Some(frames), ..ball() };
        refused(frames(12), "invalid_request", Some("num_frames"), "9 or 17");
        refused(frames(99_999), "invalid_request", Some("num_frames"), "at most");
        let wide = Order { width: Some(60), ..ball() };
        refused(wide, "invalid_request", Some("width"), "multiple of 16");
        let high = Order { height: Some(60), ..ball() };
        refused(high, "invalid_request", Some("height"), "multiple of 16");
        let preset = Order { preset: Some("best".into()), ..ball() };
        refused(preset, "invalid_request", Some("preset"), "GET /v1/presets");
        let lora = Order { lora: Some("style".into()), ..ball() };
        refused(lora, "unknown_lora", Some("lora"), "no LoRAs");
        // Nor is it planned for minutes before that is said.
        let huge = Order { width: Some(10_000), height: Some(10_000), ..ball() };
        refused(huge.clone(), "does_not_fit", None, "at least");
        assert_eq!(orders.plan(&huge, Task::T2v).unwrap_err().code, "does_not_fit");
        let off = orders.plan(&ball(), Task::V2v).unwrap_err();
        assert_eq!((off.code.as_str(), off.param.as_deref()), ("task_off", Some("task")));
        assert_eq!(orders.plan(&ball(), Task::T2v).unwrap()["fits"], false);
        let little_ram = self::orders("--device=sim:RTX 3060 12GB|--ram=100MB", &ALL);
        let plan = little_ram.plan(&model("zai-org/CogVideoX-5b"), Task::T2v).unwrap();
        assert!(
            plan["fits"] == false && plan["peak_bytes"].as_u64() < plan["budget_bytes"].as_u64()
        );
    }

    #[test]
    fn a_plan_can_be_made_of_a_model_that_is_not_here() {
        let offers = Offers::new(vec!["demo".into()], ALL.to_vec());
        let devices = Devices::new(machine("--device=sim:RTX 3060 12GB"), Path::new("no-queue"));
        let orders = Orders::new(offers, devices, Loras(None));
        let model = |model: &str| Order { model: Some(model.into()), ..ball() };
        let plan = orders.plan(&model("5b"), Task::T2v).unwrap();
        assert_eq!((&plan["available"], &plan["fits"]), (&false.into(), &true.into()));
        assert_eq!(orders.plan(&ball(), Task::T2v).unwrap()["available"], true);
        let image = orders.plan(&model("zai-org/CogVideoX-5b-I2V"), Task::I2v).unwrap();
        assert_eq!(image["available"], false);
        for (id, task) in [("5b", Task::I2v), ("sora-2", Task::T2v), ("/etc", Task::T2v)] {
            let refusal = orders.plan(&model(id), task).unwrap_err();
            assert_eq!(refusal.code, "unknown_model", "{id}");
        }
        assert_eq!(orders.settle(&model("5b"), None).unwrap_err().code, "unknown_model");
    }

    #[test]
    fn plans_are_quick_and_know_no_prompt() {
        let orders = orders("--device=sim:RTX 3060 12GB", &ALL);
        let five_b = |more: Order| Order { model: Some("5b".into()), ..more };
        let took = |order: &Order, task| {
            let began = Instant::now();
            let plan = orders.plan(order, task).unwrap();
            (plan, began.elapsed())
        };
        let (first, new) = took(&five_b(ball()), Task::T2v);
        assert_eq!((&first["fits"], &first["video"]["frames"]), (&true.into(), &49.into()));
        let (second, kept) = took(&five_b(Order { seed: Some(7), ..Order::default() }), Task::T2v);
        println!("a plan of the 5b takes {new:?}, once it is known {kept:?}");
        assert!(first == second && kept < new);
        let (video, _) = took(&five_b(ball()), Task::V2v);
        assert_eq!(video["phases"][1]["name"], "encode");
        let image = Order { model: Some("5b-i2v".into()), ..Order::default() };
        assert_eq!(took(&image, Task::I2v).0["phases"][1]["name"], "encode");
    }
}
