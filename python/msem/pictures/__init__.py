"""Path diagrams and plots of tables; matplotlib is imported when a picture is drawn."""
