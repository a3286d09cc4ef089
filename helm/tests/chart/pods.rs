//! Every pod is one that a careful cluster admits, and ends the way a worker needs.

use serde_json::Value;

use crate::{
    files::rendered,
    manifests::{kind, name, pods},
};

#[test]
fn no_pod_has_rights_it_does_not_need() {
    for (values, objects) in rendered() {
        for (owner, pod) in pods(&objects) {
            let place = format!("{values} {owner}");
            let spec = &pod["spec"];
            assert_eq!(spec["automountServiceAccountToken"], false, "{place}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{place}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{place}");
            assert!(spec["hostNetwork"].is_null() && spec["hostPID"].is_null(), "{place}");
            for container in spec["containers"].as_array().unwrap() {
                let rights = &container["securityContext"];
                assert_eq!(rights["allowPrivilegeEscalation"], false, "{place}");
                assert_eq!(rights["readOnlyRootFilesystem"], true, "{place}");
                assert_eq!(rights["capabilities"]["drop"][0], "ALL", "{place}");
                let resources = &container["resources"];
                for asked in [
                    &resources["requests"]["cpu"],
                    &resources["requests"]["memory"],
                    &resources["limits"]["memory"],
                ] {
                    assert!(asked.is_string(), "{place}: {resources}");
                }
            }
        }
    }
}

#[test]
fn what_runs_for_long_is_probed() {
    for (values, objects) in rendered() {
        for deployment in kind(&objects, "Deployment") {
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{values} {}: no {probe}", name(deployment));
            }
        }
        for (component, path) in [("api", "/readyz"), ("worker", "/readyz")] {
            let container = &deployment(&objects, component)["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["readinessProbe"]["httpGet"]["path"], path, "{values} {component}");
            assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz", "{values} {component}");
        }
    }
}

/// The worker's own grace is over before the kubelet kills it, and a lease outlives several heartbeats.
#[test]
fn a_worker_has_time_to_hand_its_leases_back() {
    for (values, objects) in rendered() {
        let worker = deployment(&objects, "worker");
        let spec = &worker["spec"]["template"]["spec"];
        let grace = seconds(argument(&spec["containers"][0], "--grace-s"));
        let pod = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(pod >= grace + 5, "{values}: killed after {pod} s, {grace} s are needed");
    }
}

#[test]
fn gpus_are_asked_for_where_the_device_is_one() {
    for (values, objects) in rendered() {
        let container = &deployment(&objects, "worker")["spec"]["template"]["spec"]["containers"][0];
        let variables = container["env"].as_array().unwrap();
        let device = variables.iter().find(|variable| variable["name"] == "SPECTEMP_DEVICE").unwrap();
        let gpus = &container["resources"]["limits"]["nvidia.com/gpu"];
        let image = container["image"].as_str().unwrap();
        assert_eq!(device["value"] == "cuda", gpus.as_u64() == Some(1), "{values}: {gpus}");
        assert_eq!(device["value"] == "cuda", image.ends_with("-cuda"), "{values}: {image}");
    }
}

pub(crate) fn deployment<'a>(objects: &'a [Value], component: &str) -> &'a Value {
    let found =
        kind(objects, "Deployment").into_iter().find(|deployment| name(deployment).ends_with(component));
    found.unwrap_or_else(|| panic!("no deployment of {component}"))
}

/// The value of `--name=value`.
fn argument<'a>(container: &'a Value, name: &str) -> &'a str {
    let arguments = container["args"].as_array().unwrap();
    let found = arguments
        .iter()
        .find_map(|argument| argument.as_str().unwrap().strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {arguments:?}"))
}

fn seconds(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number of seconds"))
}
