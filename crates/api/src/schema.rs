//! Nouns of `types` in the OpenAPI document: their JSON schemas are made by schemars, where they are defined, and put
//! into the document's components under the same names.

use std::borrow::Cow;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use spectemp_types::{Evidence, JobText, Round, Settings, Totals, Trace};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::Object},
};

macro_rules! noun {
    ($name:ident) => {
        /// Stands for the noun of that name in signatures of the document.
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                // Overwritten by `definitions`.
                RefOr::T(Schema::Object(Object::new()))
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

/// Stand-ins, named as the nouns are.
pub(crate) mod nouns {
    use super::{Cow, Object, PartialSchema, RefOr, Schema, ToSchema};

    noun!(JobText);
    noun!(Round);
    noun!(Trace);
    noun!(Evidence);
    noun!(Totals);
    noun!(Settings);
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Nouns {
    job: JobText,
    round: Round,
    trace: Trace,
    evidence: Evidence,
    totals: Totals,
    settings: Settings,
}

/// The schemas of the nouns and of all that they are made of.
pub(crate) fn definitions() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = Cow::Borrowed("/components/schemas");
    let mut generator = settings.into_generator();
    generator.subschema_for::<Nouns>();
    let mut definitions = generator.take_definitions(true);
    definitions.remove("Nouns");
    definitions
}
