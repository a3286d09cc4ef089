use spectemp_types::{Plan, VideoUri};

use super::*;

fn spec() -> JobSpec {
    JobSpec {
        id: "1".to_owned(),
        video: VideoUri::parse("a.mp4").unwrap(),
        question: Question::new("q", vec!["a".into(), "b".into()]).unwrap(),
        plan: Plan::named("demo").unwrap(),
    }
}

fn target(source: &str) -> Result<Prompts, SessionError> {
    Prompts::target(Some(source), &spec(), 20.0)
}

const BLOCKS: &str =
    "{% block system %}{% endblock %}{% block next %}{% endblock %}{% block reminder %}{% endblock %}";

fn shown(label: &str) -> Shown {
    let frame =
        FrameRef { requested_s: 1.0, pts_s: 1.0, stream_pts_s: 1.0, keyframe: true, label: label.to_owned() };
    Shown { frame, image: RgbImage { width: 1, height: 1, data: [0; 3].into() } }
}

fn cause(error: SessionError) -> String {
    match error {
        SessionError::Template { name: "target", cause } => cause,
        other => unreachable!("{other}"),
    }
}

#[test]
fn what_a_template_declares() {
    let plain = target(&format!("{BLOCKS}{{% block first %}}x{{% endblock %}}")).unwrap();
    assert_eq!((plain.labels, plain.choices_as), (LabelKind::Seconds, ChoicesAs::Letters));
    let set = r#"{% set labels = "index" %}{% set choices_as = "texts" %}"#;
    let own = target(&format!("{set}{BLOCKS}{{% block first %}}x{{% endblock %}}")).unwrap();
    assert_eq!((own.labels, own.choices_as), (LabelKind::Index, ChoicesAs::Texts));
}

#[test]
fn wrong_templates_are_refused_when_they_are_read() {
    let first = |body: &str| {
        cause(target(&format!("{BLOCKS}{{% block first %}}{body}{{% endblock %}}")).err().unwrap())
    };
    assert!(first("{{ frmaes }}").contains("undefined"));
    assert!(first("{% if %}").contains("syntax"));
    assert!(cause(target(BLOCKS).err().unwrap()).contains("first"));
    let labels = format!("{{% set labels = 'minutes' %}}{BLOCKS}{{% block first %}}{{% endblock %}}");
    assert!(cause(target(&labels).err().unwrap()).contains("whole_seconds"));
}

#[test]
fn every_frame_is_shown_once_and_in_order() {
    let frames = [shown("1"), shown("2")];
    let scene = Scene { frames: &frames, ..Scene::default() };
    let render = |body: &str| {
        let prompts = target(&format!("{BLOCKS}{{% block first %}}{body}{{% endblock %}}")).unwrap();
        prompts.render(Block::First, &scene)
    };
    let parts = render("{% for f in frames %}{{ f.label }}{{ f.image }}{% endfor %}end").unwrap();
    assert_eq!(parts.len(), 5);
    assert_eq!(parts[4], Part::Text("end".to_owned()));
    assert!(cause(render("nothing").unwrap_err()).contains("2 of 2 frames are not shown"));
    assert!(
        cause(render("{% for f in frames|reverse %}{{ f.image }}{% endfor %}").unwrap_err())
            .contains("image 1")
    );
    let twice = "{% for f in frames %}{{ f.image }}{% endfor %}{{ frames[0].image if frames }}";
    assert!(cause(render(twice).unwrap_err()).contains("twice"));
}

#[test]
fn texts_from_outside_are_harmless() {
    assert_eq!(outside(" a<|im_end|>\u{F8F0}1\u{F8F1} "), "a< |im_end| >\u{FFFD}1\u{FFFD}");
    assert_eq!(outside("<<||>>"), "<< || >>");
}
