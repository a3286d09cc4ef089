//! What a ledger keeps comes back as it was, and the fingerprint of a job with it.

use proptest::prelude::*;
use spectemp_types::{JobSpec, Plan, Question, Settings, TimeSpan, VideoUri};

fn spec(text: &str, plan: &str, dense_fps: f64, seed: u64) -> JobSpec {
    let overrides = [format!("dense_fps={dense_fps}"), format!("seed={seed}")];
    JobSpec {
        id: "a".to_owned(),
        video: VideoUri::parse("https://host/a.mp4?signature=x").unwrap(),
        question: Question::new(text, vec!["yes".to_owned(), "no".to_owned()]).unwrap(),
        plan: Plan::named(plan).unwrap().set_all(overrides.iter().map(String::as_str)).unwrap(),
    }
}

proptest! {
    #[test]
    fn a_job_keeps_its_fingerprint(text in "\\PC{1,40}", plan in prop::sample::select(&Plan::NAMES[..]), tenths in 1..2400_u32, seed in any::<u64>()) {
        prop_assume!(!text.trim().is_empty());
        let spec = spec(&text, plan, f64::from(tenths) / 10.0, seed);
        let again: JobSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        prop_assert_eq!(spec.fingerprint(), again.fingerprint());
        let renamed = JobSpec { id: "b".to_owned(), ..spec.clone() };
        prop_assert_eq!(spec.fingerprint(), renamed.fingerprint());
        let other = JobSpec { question: Question::new(format!("{text}?"), vec![]).unwrap(), ..spec.clone() };
        prop_assert_ne!(spec.fingerprint(), other.fingerprint());
    }

    #[test]
    fn settings_are_set_by_any_name_without_a_panic(name in "[a-z_]{1,20}", value in any::<String>()) {
        let plan = Plan::named("paper16").unwrap();
        let known = Settings::names().contains(&name);
        let set = plan.set_all([format!("{name}={value}").as_str()]);
        prop_assert!(known || set.is_err());
    }

    #[test]
    fn uris_never_panic_and_never_show_a_query(text in any::<String>(), secret in "[a-z]{12}") {
        let _ = VideoUri::parse(&text);
        let uri = VideoUri::parse(&format!("https://host/a.mp4?key={secret}")).unwrap();
        let shown = format!("{uri} {uri:?} {}", serde_json::to_string(&uri).unwrap());
        prop_assert!(!shown.contains(&secret));
    }

    #[test]
    fn clamped_spans_lie_in_the_video(start in -1e4..1e4_f64, end in -1e4..1e4_f64, duration in 0.0..1e4_f64) {
        if let Some(span) = TimeSpan::new(start, end).and_then(|span| span.clamped(duration)) {
            prop_assert!(0.0 <= span.start_s && span.start_s < span.end_s && span.end_s <= duration);
            prop_assert!(span.seconds() > 0.0);
        }
    }
}
