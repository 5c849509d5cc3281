// Collection: near-duplicates at #/collection/near-duplicates.

import { showDuplicates } from "./collection/duplicates.js";

export const show = showDuplicates;
