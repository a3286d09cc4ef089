//! Objects fit together: selectors find pods, references find what they name.

use serde_json::Value;

use crate::files::rendered;

pub(crate) fn kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn find<'a>(objects: &'a [Value], wanted: &str, called: &Value) -> &'a Value {
    let found = kind(objects, wanted).into_iter().find(|object| object["metadata"]["name"] == *called);
    found.unwrap_or_else(|| panic!("no {wanted} {called}"))
}

/// Templates of pods: of deployments, stateful sets and jobs, by the object's name.
pub(crate) fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let owners = objects.iter().filter(|object| object["spec"]["template"]["spec"]["containers"].is_array());
    owners.map(|object| (name(object), &object["spec"]["template"])).collect()
}

/// True where every label that `selector` asks for is there.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap_or_else(|| panic!("no labels: {selector}"));
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn selectors_find_their_pods_and_no_others() {
    for (values, objects) in rendered() {
        let pods = pods(&objects);
        for object in &objects {
            let selector = match object["kind"].as_str().unwrap() {
                "Service" => &object["spec"]["selector"],
                "Deployment" | "StatefulSet" | "PodDisruptionBudget" => {
                    &object["spec"]["selector"]["matchLabels"]
                }
                "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
                _ => continue,
            };
            let found: Vec<&str> = pods
                .iter()
                .filter(|(_, pod)| selects(selector, &pod["metadata"]["labels"]))
                .map(|(owner, _)| *owner)
                .collect();
            assert_eq!(found.len(), 1, "{values}: {} {} selects {found:?}", object["kind"], name(object));
        }
        for monitor in kind(&objects, "ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let services: Vec<_> = kind(&objects, "Service")
                .into_iter()
                .filter(|s| selects(selector, &s["metadata"]["labels"]))
                .collect();
            let [service] = services[..] else { panic!("{values}: {} finds {services:?}", name(monitor)) };
            assert_eq!(service["spec"]["ports"][0]["name"], monitor["spec"]["endpoints"][0]["port"]);
        }
    }
}

/// Keys of secrets that the chart makes, claims, service accounts, ports: what is named is there.
#[test]
fn references_find_what_they_name() {
    for (values, objects) in rendered() {
        for (owner, pod) in pods(&objects) {
            let spec = &pod["spec"];
            if let account @ Value::String(_) = &spec["serviceAccountName"] {
                find(&objects, "ServiceAccount", account);
            }
            for volume in spec["volumes"].as_array().unwrap() {
                if let claim @ Value::String(_) = &volume["persistentVolumeClaim"]["claimName"] {
                    find(&objects, "PersistentVolumeClaim", claim);
                }
            }
            for container in spec["containers"].as_array().unwrap() {
                for variable in container["env"].as_array().unwrap() {
                    check_secret(
                        &objects,
                        &variable["valueFrom"]["secretKeyRef"],
                        &format!("{values} {owner}"),
                    );
                }
                let ports = container["ports"].as_array().into_iter().flatten();
                let ports: Vec<&Value> = ports.map(|port| &port["name"]).collect();
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    assert!(port.is_null() || ports.contains(&port), "{values} {owner}: {probe} asks {port}");
                }
            }
        }
        for scaled in kind(&objects, "ScaledObject") {
            let target = find(&objects, "Deployment", &scaled["spec"]["scaleTargetRef"]["name"]);
            assert!(target["spec"]["replicas"].is_null(), "{values}: two that set the number of workers");
            let login = &scaled["spec"]["triggers"][0]["authenticationRef"]["name"];
            let login = &find(&objects, "TriggerAuthentication", login)["spec"]["secretTargetRef"][0];
            check_secret(&objects, login, &values);
        }
    }
}

/// A secret of the chart's own has the key; one of the user's is not there to be looked at.
fn check_secret(objects: &[Value], reference: &Value, place: &str) {
    let Some(secret) =
        kind(objects, "Secret").into_iter().find(|secret| secret["metadata"]["name"] == reference["name"])
    else {
        return;
    };
    let key = reference["key"].as_str().unwrap();
    assert!(secret["stringData"][key].is_string(), "{place}: secret {} has no {key}", name(secret));
}

/// What issue and guide promise is in the chart.
#[test]
fn everything_is_there() {
    let all = rendered();
    let everything = &all["everything"];
    for wanted in [
        "ConfigMap",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
        "TriggerAuthentication",
    ] {
        assert!(!kind(everything, wanted).is_empty(), "no {wanted}");
    }
    let query = &kind(everything, "ScaledObject")[0]["spec"]["triggers"][0];
    assert_eq!(query["type"], "postgresql");
    let text = query["metadata"]["query"].as_str().unwrap();
    assert!(text.contains("'queued'") && text.contains("'running'"), "{text}");

    // The migration comes before the rest where the ledger is outside, and with the rest where it is not there before.
    let hook = |objects: &[Value]| kind(objects, "Job")[0]["metadata"]["annotations"]["helm.sh/hook"].clone();
    assert_eq!(hook(&all["smallest"]), "pre-install,pre-upgrade");
    assert!(hook(everything).is_null());

    let dashboard = kind(everything, "ConfigMap")[0]["data"]["spectemp.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 20);
}
