//! A table that has lost most of its items: the brakes hold, and a person can have their way.

use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::ports::Namespace;
use serde_json::json;

use crate::model::{
    Followed, INVOCATION, ItemId, Size, World, audit, follow, process, process_with, repair, run,
};
use crate::small::{SIZE, assert_mended, refused_deletes, times};

/// Accounts that are still in the table.
const KEPT: usize = 1_000;

/// A table that has lost so many accounts of one index each: twice as many orphans.
fn half_restored(lost: usize) -> Rc<World> {
    let size = Size { accounts: KEPT + lost, indexes: 1, query_configs: 0, drift: 0, ..SIZE };
    let world = World::new(size);
    *world.fleet.lost.borrow_mut() = KEPT..KEPT + lost;
    Rc::new(world)
}

/// The time of a run: short enough for several of them.
fn time() -> Duration {
    if times() == 1 { Duration::from_secs(60) } else { INVOCATION }
}

fn orphans(chain: &Followed) -> [u64; 3] {
    [chain.total("orphaned"), chain.total("deleted"), refused_deletes(chain)]
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_orphans_is_refused_whole_and_deleted_once_somebody_says_how_many() {
    let lost = 10_000 * times();
    let flood = 2 * lost as u64;
    let world = half_restored(lost);
    let function = process(&world, "reconcile");

    let audited = follow(&function, audit(), time()).await.unwrap();
    assert_eq!(orphans(&audited), [flood, 0, flood]);
    assert_eq!(audited.last()["complete"], true, "an audit compares all");

    let changes = |world: &World| world.asked.borrow().changes;
    let refused = follow(&function, repair(), time()).await.unwrap();
    assert_eq!((orphans(&refused), changes(&world)), ([flood, 0, flood], 0));
    assert_eq!(refused.last()["complete"], false);

    let too_few = json!({"apply": true, "delete_up_to": flood / 20});
    let refused = follow(&function, too_few, time()).await.unwrap();
    assert_eq!((orphans(&refused), changes(&world)), ([flood, 0, flood], 0));

    let raised = json!({"apply": true, "delete_up_to": flood});
    let deleted = follow(&function, raised, time()).await.unwrap();
    eprintln!("{flood} orphans deleted by {} runs in {:?}", deleted.runs.len(), deleted.took);
    assert_eq!(orphans(&deleted), [flood, flood, 0]);
    assert!(deleted.runs.len() > 1, "{} runs", deleted.runs.len());
    assert_eq!(deleted.total("desired"), 2 * KEPT as u64);
    assert_eq!(deleted.total("listed"), flood + 2 * KEPT as u64);
    assert_eq!((deleted.total("failed"), &deleted.last()["complete"]), (0, &json!(true)));
    assert_mended(&world);
    assert!(world.limit.refused.borrow().is_empty(), "{:?}", world.limit.refused);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_emptied_while_orphans_are_deleted_refuses_the_rest() {
    let world = half_restored(10_000);
    let function = process(&world, "reconcile");
    let mut request = json!({"apply": true, "delete_up_to": 20_000});
    let first = run(&function, &request, Duration::from_secs(60)).await.unwrap();
    let deleted = first["settings"]["deleted"].as_u64().unwrap();
    assert!(deleted > 0 && deleted < 20_000, "{first}");

    *world.fleet.lost.borrow_mut() = 0..world.fleet.indexes();
    request["continue"] = first["continue"].clone();
    let rest = follow(&function, request, INVOCATION).await.unwrap();
    assert_eq!(orphans(&rest), [0, 0, 20_000 - deleted]);
    assert_eq!(rest.last()["complete"], false);
}

#[tokio::test(start_paused = true)]
async fn keys_that_become_stale_while_others_are_rewritten_are_asked_for_again() {
    const FEW: u64 = 1_000;
    for (more, is_refused) in [(FEW, false), (8_000, true)] {
        let size = Size { accounts: 10_000, indexes: 1, query_configs: 0, drift: 0, ..SIZE };
        let world = Rc::new(World::new(size));
        let change = |indexes: std::ops::Range<u64>| {
            for index in indexes {
                world.change(ItemId::settings(usize::try_from(index).unwrap()));
            }
        };
        change(0..FEW);
        let function = process_with(&world, "reconcile", 10);
        let first = run(&function, &repair(), Duration::from_secs(40)).await.unwrap();
        let written = first["settings"]["written"].as_u64().unwrap();
        assert!(written > 0 && written < 2 * FEW, "{first}");

        change(FEW..FEW + more);
        let mut request = repair();
        request["continue"] = first["continue"].clone();
        let rest = follow(&function, request, INVOCATION).await.unwrap();
        let refused = rest.runs.iter().filter_map(|run| run["refused"]["rewrite"].as_u64());
        let stale = world.compare(Namespace::Settings).stale;
        assert_eq!((refused.sum::<u64>() == stale, stale > 0), (true, is_refused), "{more}");
        assert!(!is_refused || stale >= 2 * more, "{stale}");
        assert_eq!(rest.last()["complete"], !is_refused, "{more}");
    }
}
