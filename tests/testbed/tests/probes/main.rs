//! What the exporter relies on, asked of the services themselves: each probe is a sentence. The same
//! probes go to the stand-ins, to wrangler's local KV, and to a namespace and a table of their own at
//! Cloudflare and AWS. `docs/probes.md` says which ran where.

mod kv;
mod place;
mod table;

use place::{Place, Where, given};
use testbed::kv::{Kv, KvOptions};
use testbed::table::{StreamView, Table};

/// A sentence, the places that are known to have it otherwise, and how it is tried.
type Probe = (&'static str, &'static [Where], fn(&Place) -> Result<(), String>);

/// Makes all probes of a place, which is left empty.
fn make(place: &Place, probes: &[Probe]) {
    let mut failed = Vec::new();
    for (sentence, except, probe) in probes {
        if except.contains(&place.is) {
            println!("not here  {sentence}");
            continue;
        }
        match probe(place) {
            Ok(()) => println!("holds     {sentence}"),
            Err(why) => failed.push(format!("{sentence} {why}")),
        }
    }
    println!("{} requests", place.requests());
    assert!(failed.is_empty(), "does not hold:\n{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kv_of_the_stand_in() {
    let namespaces = vec!["probe".to_owned()];
    let (account, token) = ("account".to_owned(), "token".to_owned());
    let kv = Kv::start(KvOptions { port: 0, account, token, namespaces }).await.unwrap();
    kv.limit_requests(1_200, std::time::Duration::from_secs(300));
    let url = kv.url_template().replace("{account_id}", "account");
    let place = Place::kv(Where::StandIn, &url.replace("{namespace_id}", "probe"), Some("token"));
    make(&place, kv::PROBES);
    assert!(kv.keys("probe").is_empty(), "a probe cleans up");
}

#[tokio::test(flavor = "multi_thread")]
async fn table_of_the_stand_in() {
    let table = Table::start(0, "probe", StreamView::NewImage).await.unwrap();
    let place = Place::table(Where::StandIn, &table.url(), "probe", "us-east-1", "local:local");
    make(&place, table::PROBES);
}

#[test]
fn the_page_has_every_probe() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/probes.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (sentence, ..) in kv::PROBES.iter().chain(table::PROBES) {
        assert!(page.contains(&format!("\n{sentence} |")), "{sentence}");
    }
}

/// The places that the environment names: `make probe-local` and `make probe` do.
#[test]
fn places_that_are_given() {
    if let Some(url) = given("PROBE_LOCAL_KV_URL") {
        let place = Place::kv(Where::Wrangler, &url, None);
        kv::guard(&place);
        make(&place, kv::PROBES);
    }
    if let (Some(url), Some(token)) = (given("PROBE_KV_URL"), given("PROBE_KV_TOKEN")) {
        let place = Place::kv(Where::Service, &url, Some(&token));
        kv::guard(&place);
        make(&place, kv::PROBES);
    }
    if let (Some(name), Some(region)) = (given("PROBE_TABLE"), given("AWS_REGION")) {
        let secret = |name| given(name).unwrap_or_else(|| panic!("{name} is missing"));
        let user = [secret("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")].join(":");
        let url = format!("https://dynamodb.{region}.amazonaws.com");
        let place = Place::table(Where::Service, &url, &name, &region, &user);
        table::guard(&place);
        make(&place, table::PROBES);
    }
}
