//! Items that are imported while a reconcile is under way are nobody's orphans.

use std::rc::Rc;
use std::time::Duration;

use crate::model::{Size, audit, follow, process, repair};
use crate::small::{SHORT, SIZE, assert_mended, refused_deletes, world};

#[tokio::test(start_paused = true)]
async fn an_import_at_any_moment_of_a_run_leaves_no_orphan_and_is_never_refused() {
    // The first page of the settings, the last one, the first one of the query configs, and so on;
    // and after each of the first passes over the table has begun.
    let moments = (1..20).map(|requests| (requests, 0)).chain((1..5).map(|passes| (0, passes)));
    for (requests, passes) in moments {
        for (request, page_keys) in [(audit(), 1_000), (repair(), 1_000), (repair(), 100)] {
            let size = Size { accounts: 40, query_configs: 5, drift: 0, ..SIZE };
            let mut world = world(size);
            world.page_keys = page_keys;
            // 30 indexes with 60 keys, and their 150 query configs.
            *world.fleet.to_come.borrow_mut() = 50..80;
            let world = Rc::new(world);
            let function = process(&world, "reconcile");
            let importing = async {
                while world.asked.borrow().kv.len() < requests || world.passes() < passes {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                *world.fleet.to_come.borrow_mut() = 0..0;
            };
            let chain = async {
                tokio::select! {
                    chain = follow(&function, request.clone(), SHORT) => chain.unwrap(),
                    // The import is not waited for where it would come after the chain.
                    () = async { importing.await; std::future::pending().await } => unreachable!(),
                }
            };
            let chain = chain.await;
            let when = format!("{requests} requests, {passes} passes, {request}");
            assert_eq!((chain.total("orphaned"), refused_deletes(&chain)), (0, 0), "{when}");
            assert_eq!(chain.last()["complete"], true, "{when}");
            if request["apply"] == true {
                assert_mended(&world);
            }
        }
    }
}
