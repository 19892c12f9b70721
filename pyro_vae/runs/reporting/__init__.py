"""The report: one HTML page for a run, and one for a comparison of runs.

A page is a file that holds all it shows: figures, styles and the few lines of JavaScript that sort
tables. It fetches nothing. The page of a run is made from the files in the run's folder, without
its data and without its model.

| file | content |
|---|---|
| `run_page` | the page of a run |
| `comparison_page` | the page of a comparison of runs |
| `groups_page` | the page of a comparison of groups of runs |
| `answer_of_run` | the start of the page, and the last screen of a command |
| `answer` | what was found, in sentences |
| `next_steps` | commands that are worth trying next |
| `run_tables` | the tables of a run's page |
| `terms` | the terms that pages use, explained |
| `captions` | titles, captions and alternative texts of figures |
| `run_files` | what the files in a run's folder hold |
| `page_parts` | what pages consist of: tables, figures; a page put together |
| `rounding` | numbers for people: errors to two digits, and values to match |
| `templates/` | the pages without their content, styles, and JavaScript |
"""
